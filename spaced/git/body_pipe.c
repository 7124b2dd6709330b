/* See git_int.h: request bodies of any size go through with bounded memory. */
#include <stdlib.h>
#include <string.h>

#include "spaced/git/git_int.h"

#define PAUSE_ABOVE (1U << 20)
#define RESUME_BELOW (256U << 10)

struct piece {
	uv_write_t req;
	char data[];
};

int body_pipe_init(struct body_pipe *b, uv_loop_t *loop, struct http_req *req, void (*on_closed)(struct body_pipe *b),
		   void *owner)
{
	*b = (struct body_pipe){.req = req, .on_closed = on_closed, .owner = owner};
	int r = uv_pipe_init(loop, &b->pipe, 0);
	b->pipe.data = b;
	return r;
}

static void resume(struct body_pipe *b)
{
	if (b->paused && b->req)
		http_resume(b->req);
	b->paused = false;
}

static void on_written(uv_write_t *w, int status)
{
	struct body_pipe *b = w->handle->data;

	free(w->data);
	if (status < 0)
		b->broken = true;
	if (b->broken || uv_stream_get_write_queue_size((uv_stream_t *)&b->pipe) < RESUME_BELOW)
		resume(b);
}

void body_pipe_write(struct body_pipe *b, const char *p, size_t n)
{
	if (b->broken || b->closing)
		return;
	struct piece *piece = xmalloc(sizeof *piece + n);
	memcpy(piece->data, p, n);
	piece->req.data = piece;
	uv_buf_t buf = uv_buf_init(piece->data, (unsigned)n);
	if (uv_write(&piece->req, (uv_stream_t *)&b->pipe, &buf, 1, on_written) < 0) {
		free(piece);
		b->broken = true;
		return;
	}
	if (!b->paused && b->req && uv_stream_get_write_queue_size((uv_stream_t *)&b->pipe) > PAUSE_ABOVE) {
		b->paused = true;
		http_pause(b->req);
	}
}

static void on_closed(uv_handle_t *h)
{
	struct body_pipe *b = h->data;

	b->on_closed(b);
}

void body_pipe_close(struct body_pipe *b)
{
	if (b->closing)
		return;
	b->closing = true;
	uv_close((uv_handle_t *)&b->pipe, on_closed);
}

static void on_shutdown(uv_shutdown_t *s, int status)
{
	struct body_pipe *b = s->data;

	free(s);
	body_pipe_close(b);
}

void body_pipe_end(struct body_pipe *b)
{
	if (b->closing)
		return;
	uv_shutdown_t *s = xcalloc(1, sizeof *s);
	s->data = b;
	if (uv_shutdown(s, (uv_stream_t *)&b->pipe, on_shutdown) < 0) {
		free(s);
		body_pipe_close(b);
	}
}
