/* What the static role decides from a request's text: no accepted path leaves the site or names a hidden file, no range
 * lies outside the file. The first line is the path; the second goes to every header's parser; the rest is site.json. */
#include <stdlib.h>
#include <string.h>

#include "spaced/static/path.h"
#include "spaced/static/site.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct str line(const char **p, size_t *left)
{
	const char *end = *left ? memchr(*p, '\n', *left) : NULL;
	struct str s = {*p, end ? (size_t)(end - *p) : *left};

	*p += s.n + (end ? 1 : 0);
	*left -= s.n + (end ? 1 : 0);
	return s;
}

static void check_path(struct str raw)
{
	struct buf out = BUF_INIT;
	bool slash;

	if (static_path(raw, &out, &slash) == 0) {
		cleanup_buf struct buf framed = BUF_INIT;
		buf_addf(&framed, "/%s/", out.data);
		if (strlen(out.data) != out.len || out.data[0] == '/' || strstr(framed.data, "/../") ||
		    strstr(framed.data, "/./") || (out.len && strstr(framed.data, "//")) ||
		    strstr(framed.data, "/.git/") || strstr(framed.data, "/.env/"))
			abort();
		static_immutable(out.data);
	}
	buf_release(&out);
}

static void check_range(struct str value)
{
	static const uint64_t sizes[] = {0, 1, 1000, UINT64_MAX};

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		uint64_t first, length;
		if (static_range(value, sizes[i], &first, &length) == RANGE_ONE &&
		    (length == 0 || first >= sizes[i] || length > sizes[i] - first))
			abort();
	}
}

static void check_site(const char *p, size_t n)
{
	struct site *s = site_parse(p, n);

	if (!site_path_ok(s->root) || !site_path_ok(s->index))
		abort();
	for (size_t i = 0; i < s->nheaders; i++)
		if (strpbrk(s->headers[i].value, "\r\n"))
			abort();
	site_put(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data;
	size_t left = size;
	struct str path = line(&p, &left);
	struct str value = line(&p, &left);

	check_path(path);
	check_range(value);
	static_coding(value);
	static_etag_in(value, "\"abc\"", true);
	site_id_ok(value);
	check_site(p, left);
	return 0;
}
