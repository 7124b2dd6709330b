/* Counters per Space, told to control at most once a second (PROXY_ACTIVITY): what it decides sleep by. */
#include <errno.h>

#include "proxy/worker.h"

#define REPORT_MS 1000
#define FRAME_FULL (FRAME_MAX_PAYLOAD - 1024)

struct space *space_of(struct worker *w, const char *name)
{
	struct space *s;
	size_t n = strlen(name);

	if (n == 0)
		return NULL;
	HASH_FIND(hh, w->spaces, name, n, s);
	if (!s) {
		s = xcalloc(1, sizeof *s + n + 1);
		memcpy(s->name, name, n);
		HASH_ADD_KEYPTR(hh, w->spaces, s->name, n, s);
	}
	return s;
}

void activity_forget(struct worker *w)
{
	struct space *s, *next;

	HASH_ITER(hh, w->spaces, s, next)
	s->reported_open = 0;
}

static void send_report(struct worker *w, uint32_t n, const struct buf *spaces)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (n == 0)
		return;
	put_u32(&b, n);
	buf_add(&b, spaces->data, spaces->len);
	channel_send(w->control, PROXY_ACTIVITY, 0, b.data, b.len, NULL, 0);
}

static void put_space(struct buf *b, const struct space *s)
{
	put_str(b, s->name);
	put_u64(b, s->requests);
	put_u64(b, s->bytes_in);
	put_u64(b, s->bytes_out);
	put_u32(b, s->open);
	put_u32(b, s->errors);
}

void activity_report(struct worker *w)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct space *s, *next;
	uint64_t now = uv_now(&w->loop);
	uint32_t n = 0;

	if (!w->control || now < w->activity_at)
		return;
	w->activity_at = now + REPORT_MS;
	HASH_ITER(hh, w->spaces, s, next)
	{
		if (s->requests || s->bytes_in || s->bytes_out || s->errors || s->open != s->reported_open) {
			put_space(&b, s);
			n++;
			s->requests = s->bytes_in = s->bytes_out = 0;
			s->errors = 0;
			s->reported_open = s->open;
		} else if (s->open == 0) {
			HASH_DEL(w->spaces, s);
			free(s);
		}
		if (b.len > FRAME_FULL) {
			send_report(w, n, &b);
			buf_clear(&b);
			n = 0;
		}
	}
	send_report(w, n, &b);
}
