/* Response heads of an app, to each kind of request: what is accepted is written with one framing, and read again the same.
 * First byte of the input: method and whether a WebSocket was asked for. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/http1.h"

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void roundtrip(struct http1_response *r, enum http1_method method, bool websocket, const char *headers)
{
	static const struct http1_limits wide = {131072, HTTP1_FIELDS_MAX, 0};
	static struct http1_response again;
	struct http1_reply how = {.client_minor = 1,
				  .keep_alive = true,
				  .body = r->body == HTTP1_UNTIL_CLOSE ? HTTP1_CHUNKED : r->body,
				  .headers = headers,
				  .request_id = STR("id"),
				  .date = "Sun, 22 Nov 2026 00:00:00 GMT"};
	cleanup_buf struct buf out = BUF_INIT;

	http1_write_response(r, &how, &out);
	check(http1_head_end(out.data, out.len, 0) == (ssize_t)out.len);
	check(!memchr(out.data, '\0', out.len));
	if (r->nfields > HTTP1_FIELDS_MAX - 8)
		return;
	check(http1_parse_response(out.data, out.len, method, websocket, &wide, &again) == 0);
	check(again.status == r->status && again.upgrade == r->upgrade);
	check(again.body == how.body && (how.body != HTTP1_LENGTH || again.length == r->length));
	check(r->status < 200 || again.has_date);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct http1_limits limits = {65536, HTTP1_FIELDS_MAX, 0};
	static struct http1_response r;

	if (size < 1)
		return 0;
	enum http1_method method = data[0] % 7 + 1;
	bool websocket = data[0] & 0x80;
	char *head = xmalloc(size - 1);
	memcpy(head, data + 1, size - 1);
	ssize_t end = http1_head_end(head, size - 1, 0);
	if (end >= 0 && http1_parse_response(head, end ? (size_t)end : size - 1, method, websocket, &limits, &r) == 0) {
		check(end > 0);
		check(r.status >= 100 && r.status <= 599);
		check(r.status != 101 || (r.upgrade && websocket));
		check(method != HTTP1_HEAD || r.body == HTTP1_NO_BODY);
		check((r.status != 204 && r.status != 304 && r.status >= 200) || r.body == HTTP1_NO_BODY);
		roundtrip(&r, method, websocket, "");
		roundtrip(&r, method, websocket, "Server: spaced\r\n");
	}
	free(head);
	return 0;
}
