/* The chunked coding of bodies, both ways: llhttp reads it (its strict build, see the Makefile), and what it lets grow
 * without end is counted here: extensions, zeros before a size, trailers. See http1.h. */
#include <errno.h>

#include "proxy/http1_impl.h"

#define EXTENSION_MAX 256 /* bytes per chunk; nobody needs them, smugglers do (TERM.EXT) */
#define OVERHEAD_MAX 8192 /* bytes that are no body between two body bytes, trailers too */

static int on_extension(llhttp_t *parser, const char *at, size_t n)
{
	struct http1_chunked *c = parser->data;
	c->extension += (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)at[i] < 0x20 || at[i] == 0x7f)
			return -1;
	return c->extension > EXTENSION_MAX ? -1 : 0;
}

static int on_chunk(llhttp_t *parser)
{
	struct http1_chunked *c = parser->data;
	c->extension = 0;
	return 0;
}

/* What stands between c->last and `end` is no body: sizes, extensions, trailers. llhttp takes a bare LF for the end of the
 * trailers even when it is strict. */
static int pass_framing(struct http1_chunked *c, const char *end)
{
	c->overhead += (uint32_t)(end - c->last);
	if (c->overhead > OVERHEAD_MAX)
		return -1;
	for (const char *lf = c->last; (lf = memchr(lf, '\n', (size_t)(end - lf))) != NULL; lf++)
		if ((lf > c->last ? lf[-1] : c->before) != '\r')
			return -1;
	if (end > c->last)
		c->before = end[-1];
	return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t n)
{
	struct http1_chunked *c = parser->data;

	if (pass_framing(c, at) < 0)
		return -1;
	c->overhead = 0;
	c->before = '\0';
	c->last = at + n;
	if (c->nspans < HTTP1_SPANS) {
		c->spans[c->nspans++] = (struct str){at, n};
		return 0;
	}
	/* Many small chunks: the rest of them is moved together, in the buffer they lie in. */
	struct str *s = &c->spans[HTTP1_SPANS - 1];
	memmove((char *)(uintptr_t)(s->p + s->n), at, n);
	s->n += n;
	return 0;
}

static int on_trailer(llhttp_t *parser, const char *at, size_t n)
{
	struct http1_chunked *c = parser->data;
	c->named = c->named || n > 0;
	return 0;
}

/* llhttp lets a field without a name pass. */
static int on_trailer_name(llhttp_t *parser)
{
	struct http1_chunked *c = parser->data;
	bool named = c->named;
	c->named = false;
	return named ? 0 : -1;
}

static int on_end(llhttp_t *parser)
{
	struct http1_chunked *c = parser->data;
	c->done = true;
	return HPE_PAUSED;
}

static const llhttp_settings_t *settings(void)
{
	static llhttp_settings_t s;

	if (!s.on_body) {
		llhttp_settings_init(&s);
		s.on_body = on_body;
		s.on_chunk_header = on_chunk;
		s.on_chunk_extension_name = on_extension;
		s.on_chunk_extension_value = on_extension;
		s.on_header_field = on_trailer;
		s.on_header_field_complete = on_trailer_name;
		s.on_message_complete = on_end;
	}
	return &s;
}

void http1_chunked_init(struct http1_chunked *c)
{
	static const char head[] = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

	memset(c, 0, sizeof *c);
	llhttp_init(&c->parser, HTTP_REQUEST, settings());
	c->parser.data = c;
	/* The parser only starts with a head: one of ours. */
	if (llhttp_execute(&c->parser, head, sizeof head - 1) != HPE_OK)
		abort();
}

ssize_t http1_chunked_decode(struct http1_chunked *c, char *p, size_t n, struct str spans[HTTP1_SPANS], size_t *nspans)
{
	c->spans = spans;
	c->nspans = 0;
	c->last = p;
	*nspans = 0;
	if (c->bad || c->done)
		return c->bad ? -EBADMSG : 0;
	llhttp_errno_t e = llhttp_execute(&c->parser, p, n);
	*nspans = c->nspans;
	if (e != HPE_OK && !(e == HPE_PAUSED && c->done)) {
		c->bad = true;
		return -EBADMSG;
	}
	size_t used = e == HPE_OK ? n : (size_t)(llhttp_get_error_pos(&c->parser) - p);
	if (pass_framing(c, p + used) < 0) {
		c->bad = true;
		return -EBADMSG;
	}
	return (ssize_t)used;
}
