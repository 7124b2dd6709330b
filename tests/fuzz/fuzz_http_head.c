/* Request heads: what the policy accepts and writes anew must be read again as the very same request, by the policy and by
 * the plain rules below (h11's in spirit): one Host, one framing, no byte that is not allowed, one end of the head. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/http1.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

static bool name_is(struct str s, const char *name)
{
	return str_ieq(s, name);
}

/* A reader of its own: lines split at CRLF only. */
static void check_written(const struct http1_request *r, const char *p, size_t n)
{
	unsigned hosts = 0, lengths = 0, codings = 0, lines = 0;
	const char *end = p + n;

	check(n > 4 && memcmp(end - 4, "\r\n\r\n", 4) == 0);
	check(memmem(p, n - 1, "\r\n\r\n", 4) == NULL);
	check(!memchr(p, '\0', n));
	for (const char *at = p; at < end - 2; lines++) {
		const char *eol = memmem(at, (size_t)(end - at), "\r\n", 2);
		check(eol != NULL && !memchr(at, '\r', (size_t)(eol - at)) && !memchr(at, '\n', (size_t)(eol - at)));
		check(*at != ' ' && *at != '\t');
		if (lines) {
			const char *colon = memchr(at, ':', (size_t)(eol - at));
			check(colon && colon > at && colon[-1] != ' ' && colon[-1] != '\t');
			struct str name = {at, (size_t)(colon - at)};
			hosts += name_is(name, "host");
			lengths += name_is(name, "content-length");
			codings += name_is(name, "transfer-encoding");
			check(!memchr(name.p, '_', name.n));
			check(!name_is(name, "expect") && !name_is(name, "te") && !name_is(name, "trailer"));
			check(r->websocket || (!name_is(name, "upgrade") && !name_is(name, "connection")));
		} else {
			const char *sp = memchr(at, ' ', (size_t)(eol - at));
			check(sp && memrchr(at, ' ', (size_t)(eol - at)) == eol - 9 &&
			      memcmp(eol - 8, "HTTP/1.1", 8) == 0);
			check(memchr(sp + 1, ' ', (size_t)(eol - sp - 1)) == eol - 9);
		}
		at = eol + 2;
	}
	check(hosts == 1 && lengths + codings <= 1);
	check(codings == (r->body == HTTP1_CHUNKED));
	check(r->body != HTTP1_LENGTH || lengths == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct http1_limits limits = {32768, 100, 8192}, wide = {65536, HTTP1_FIELDS_MAX, 16384};
	static struct http1_request r, again;
	struct http1_forward f = {
	    .client = STR("192.0.2.1"), .proto = "http", .port = 80, .request_id = STR("id"), .site = "s"};
	char *head = xmalloc(size);
	cleanup_buf struct buf out = BUF_INIT;

	memcpy(head, data, size);
	ssize_t end = http1_head_end(head, size, 0);
	check(end <= (ssize_t)size);
	if (end >= 0 && http1_parse_request(head, end ? (size_t)end : size, &limits, &r) == 0) {
		check(end > 0);
		http1_write_request(&r, &f, &out);
		check_written(&r, out.data, out.len);
		check(http1_head_end(out.data, out.len, 0) == (ssize_t)out.len);
		check(http1_parse_request(out.data, out.len, &wide, &again) == 0);
		check(again.method == r.method && again.body == r.body && again.length == r.length);
		check(again.websocket == r.websocket && again.minor == 1);
		check(strcmp(again.host, r.host) == 0);
		check(again.target.n == r.target.n && memcmp(again.target.p, r.target.p, r.target.n) == 0);
	}
	free(head);
	return 0;
}
