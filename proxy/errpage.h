/* The pages that the proxy answers by itself: HTML for people, JSON or plain text for programs. Pure: bytes into a
 * buffer; exchange.c and client.c send them. */
#ifndef PROXY_ERRPAGE_H
#define PROXY_ERRPAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum page_format { PAGE_TEXT, PAGE_HTML, PAGE_JSON };
enum page_format page_format_of(struct str accept); /* an Accept field, or empty */

struct page {
	int status;
	const char *title;	      /* plain text, escaped here */
	const char *text;	      /* plain text; what stands behind the first empty line is shown as a log */
	bool refresh;		      /* reloads itself, with Retry-After */
	unsigned retry_after;	      /* seconds; 0: none */
	const char *headers;	      /* "" or header lines to add */
	const char *waits_for;	      /* a Space on its way: reloads itself as soon as that answers */
	const char *link, *link_text; /* NULL, or where to go on */
};

struct page_reader {
	enum page_format format;
	bool head, keep_alive;
	uint8_t minor;
	const char *request_id; /* "": none */
	const char *date;
};

const char *page_reason(int status);
/* A whole response, head and body. */
void page_write(const struct page *p, const struct page_reader *to, struct buf *out);

#endif
