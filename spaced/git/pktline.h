/* pkt-line (gitprotocol-common(5)): four hex digits of length, themselves included, then the bytes. Pure.
 * Parsed in the unpack role only; control writes it. */
#ifndef SPACED_GIT_PKTLINE_H
#define SPACED_GIT_PKTLINE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"

#define PKT_MAX 65520U		   /* a whole packet: LARGE_PACKET_MAX of git */
#define PKT_DATA_MAX (PKT_MAX - 4) /* its payload */

enum pkt_kind { PKT_DATA, PKT_FLUSH /* 0000 */, PKT_DELIM /* 0001 */, PKT_END /* 0002 */ };

struct pkt {
	enum pkt_kind kind;
	struct str data; /* points into the input; a final LF is not cut off */
};

/* Reads one packet from the front. Its size in bytes; 0 when more input is needed; -1 when no input can make it valid. */
ssize_t pkt_parse(const char *p, size_t n, struct pkt *out);
/* The payload without one final LF. */
struct str pkt_chomp(struct str s);

/* Appends one packet; `n` is at most PKT_DATA_MAX. */
void pkt_add(struct buf *b, const void *p, size_t n);
void pkt_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void pkt_flush(struct buf *b);
/* Any number of bytes as packets of side-band-64k (gitprotocol-pack(5)): 1 data, 2 progress, 3 fatal error. */
void pkt_band(struct buf *b, int band, const void *p, size_t n);

#endif
