/* Text on its way to somebody's terminal as "remote: " lines: whatever an app prints, nothing but text, line ends, tabs
 * and colours gets there (CVE-2024-52005: git passes control sequences of a server through). Pure. */
#ifndef SPACED_GIT_SIDEBAND_H
#define SPACED_GIT_SIDEBAND_H

#include "base/buf.h"

struct text_filter {
	char held[32]; /* an unfinished escape sequence or UTF-8 character, until its rest arrives */
	size_t nheld;
	bool cr; /* the last byte was '\r' */
};

/* Appends the harmless form of `n` bytes: '\r' ("progress 10%\r") starts a new line; other controls, C1 included, and
 * bytes that are not UTF-8 become '?'; SGR colours ("\33[1;31m") stay. */
void text_filter(struct text_filter *f, const char *p, size_t n, struct buf *out);
/* What is still held back, when no more will come. */
void text_filter_end(struct text_filter *f, struct buf *out);

#endif
