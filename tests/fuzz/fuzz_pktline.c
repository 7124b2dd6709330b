/* pkt-line parsing and the terminal filter on any bytes. */
#include <stdint.h>

#include "spaced/git/pktline.h"
#include "spaced/git/sideband.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data;
	cleanup_buf struct buf out = BUF_INIT;
	struct text_filter f = {0};
	struct pkt pkt;
	ssize_t k;

	for (size_t at = 0; at < size && (k = pkt_parse(p + at, size - at, &pkt)) > 0; at += (size_t)k)
		if (k < 4 || (size_t)k > size - at || pkt.data.n > PKT_DATA_MAX)
			__builtin_trap();
	text_filter(&f, p, size / 2, &out);
	text_filter(&f, p + size / 2, size - size / 2, &out);
	text_filter_end(&f, &out);
	for (size_t i = 0; i < out.len; i++) {
		char c = out.data[i];
		if ((c >= 0 && c < ' ' && c != '\n' && c != '\t' && c != 0x1b) || c == 0x7f)
			__builtin_trap();
		if (c == 0x1b && (i + 1 == out.len || out.data[i + 1] != '['))
			__builtin_trap();
	}
	return 0;
}
