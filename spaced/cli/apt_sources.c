/* See apt_sources.h. */
#include "spaced/cli/apt_sources.h"

#include <string.h>

#include "base/cleanup.h"

#define BLANK " \t"

struct source {
	struct buf uris, suites, components;
	struct buf rest; /* further fields, as whole lines */
	bool deb, disabled;
};

static void source_release(struct source *s)
{
	buf_release(&s->uris);
	buf_release(&s->suites);
	buf_release(&s->components);
	buf_release(&s->rest);
	*s = (struct source){0};
}

static bool next_word(const char **p, struct str *word)
{
	*p += strspn(*p, " \t\r\n");
	*word = (struct str){*p, strcspn(*p, " \t\r\n")};
	*p += word->n;
	return word->n > 0;
}

static bool has_word(const struct buf *b, const char *want)
{
	const char *p = b->data ? b->data : "";
	struct str w;

	while (next_word(&p, &w))
		if (str_eq(w, want))
			return true;
	return false;
}

/* "bookworm-updates" -> "-updates", "stable/updates" -> "/updates"; NULL: another release or archive. */
static const char *pocket(struct str suite, const char *from)
{
	static const char *const pockets[] = {"", "-updates", "-security", "/updates"};
	const char *const names[] = {from, "stable"};

	for (size_t i = 0; i < 2; i++) {
		size_t n = strlen(names[i]);
		if (suite.n < n || memcmp(suite.p, names[i], n) != 0)
			continue;
		for (size_t k = 0; k < sizeof pockets / sizeof *pockets; k++)
			if (str_eq((struct str){suite.p + n, suite.n - n}, pockets[k]))
				return pockets[k];
	}
	return NULL;
}

static bool emit(const struct source *s, const char *from, const char *to, struct buf *out)
{
	const char *p = s->suites.data ? s->suites.data : "";
	cleanup_buf struct buf suites = BUF_INIT;
	struct str w;

	if (!s->deb || s->disabled || !s->uris.len || !has_word(&s->components, "main"))
		return false;
	while (next_word(&p, &w)) {
		const char *end = pocket(w, from);
		if (end)
			buf_addf(&suites, " %s%s", to, end);
	}
	if (!suites.len)
		return false;
	buf_addf(out, "Types: deb\nURIs: %s\nSuites:%s\nComponents: %s\n%s\n", s->uris.data, suites.data,
		 s->components.data, s->rest.data ? s->rest.data : "");
	return true;
}

/* ---- one-line: deb [option=value ...] uri suite component ... ---- */

static void option(struct source *s, struct str o)
{
	static const struct {
		const char *name, *field;
	} fields[] = {
	    {"arch", "Architectures"}, {"signed-by", "Signed-By"},
	    {"trusted", "Trusted"},    {"check-valid-until", "Check-Valid-Until"},
	    {"by-hash", "By-Hash"},
	};
	const char *eq = memchr(o.p, '=', o.n);

	for (size_t i = 0; eq && i < sizeof fields / sizeof *fields; i++)
		if (str_eq((struct str){o.p, (size_t)(eq - o.p)}, fields[i].name)) {
			buf_addf(&s->rest, "%s: %.*s\n", fields[i].field, (int)(o.p + o.n - eq - 1), eq + 1);
			for (char *c = s->rest.data + s->rest.len; c > s->rest.data && c[-1] != ':'; c--)
				if (*c == ',') /* lists: commas there, spaces here */
					*c = ' ';
		}
}

static void read_line(const char *line, struct source *s)
{
	const char *p = line;
	struct str w;

	if (!next_word(&p, &w) || !str_eq(w, "deb"))
		return;
	s->deb = true;
	p += strspn(p, BLANK);
	if (*p == '[') {
		for (p++; next_word(&p, &w);) {
			bool last = w.p[w.n - 1] == ']';
			option(s, (struct str){w.p, w.n - last});
			if (last)
				break;
		}
	}
	if (next_word(&p, &w))
		buf_add(&s->uris, w.p, w.n);
	if (next_word(&p, &w))
		buf_add(&s->suites, w.p, w.n);
	while (next_word(&p, &w))
		buf_addf(&s->components, "%s%.*s", s->components.len ? " " : "", (int)w.n, w.p);
}

/* ---- deb822 ---- */

/* One "Field: value" with its further lines, which begin with a blank. */
static void read_field(const char *field, struct source *s)
{
	const char *colon = strchr(field, ':');

	if (!colon)
		return;
	struct str name = {field, (size_t)(colon - field)};
	const char *value = colon + 1 + strspn(colon + 1, BLANK);
	cleanup_buf struct buf flat = BUF_INIT;
	struct str w;
	for (const char *p = value; next_word(&p, &w);)
		buf_addf(&flat, "%s%.*s", flat.len ? " " : "", (int)w.n, w.p);
	if (!flat.data)
		return;
	if (str_ieq(name, "Types"))
		s->deb = has_word(&flat, "deb");
	else if (str_ieq(name, "Enabled"))
		s->disabled = has_word(&flat, "no") || has_word(&flat, "false");
	else if (str_ieq(name, "URIs") || str_ieq(name, "URI"))
		buf_adds(&s->uris, flat.data);
	else if (str_ieq(name, "Suites") || str_ieq(name, "Suite"))
		buf_adds(&s->suites, flat.data);
	else if (str_ieq(name, "Components") || str_ieq(name, "Component"))
		buf_adds(&s->components, flat.data);
	else
		buf_addf(&s->rest, "%.*s: %s\n", (int)name.n, name.p, value); /* a key may stand in it, line by line */
}

static size_t take_deb822(const char *text, const char *from, const char *to, struct buf *out)
{
	cleanup_buf struct buf field = BUF_INIT;
	struct source s = {0};
	size_t taken = 0;

	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		bool blank = strspn(p, " \t\r") >= n, more = n && (*p == ' ' || *p == '\t');
		if (n && *p == '#') {
			/* nothing */
		} else if (!blank && more) {
			buf_addf(&field, "\n%.*s", (int)n, p);
		} else {
			if (field.len)
				read_field(field.data, &s);
			buf_clear(&field);
			if (blank) {
				taken += emit(&s, from, to, out);
				source_release(&s);
			} else {
				buf_add(&field, p, n);
			}
		}
		p += n + (p[n] == '\n');
	}
	if (field.len)
		read_field(field.data, &s);
	taken += emit(&s, from, to, out);
	source_release(&s);
	return taken;
}

size_t apt_sources_take(const char *text, bool deb822, const char *from, const char *to, struct buf *out)
{
	size_t taken = 0;

	if (deb822)
		return take_deb822(text, from, to, out);
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		cleanup_free char *line = xstrndup(p, n);
		struct source s = {0};
		line[strcspn(line, "#")] = '\0';
		read_line(line, &s);
		taken += emit(&s, from, to, out);
		source_release(&s);
		p += n + (p[n] == '\n');
	}
	return taken;
}

bool apt_sources_mirror(const char *stanzas, char *uri, size_t size)
{
	const char *p = strstr(stanzas, "URIs: ");

	if (!p)
		return false;
	p += strlen("URIs: ");
	snprintf(uri, size, "%.*s", (int)strcspn(p, " \n"), p);
	return true;
}

void apt_sources_keyrings(const char *stanzas, void (*found)(void *ctx, const char *path), void *ctx)
{
	static const char field[] = "\nSigned-By:";
	struct str w;

	for (const char *p = stanzas; (p = strstr(p, field)) != NULL;) {
		p += strlen(field);
		while (next_word(&p, &w) && *w.p == '/') {
			cleanup_free char *path = xstrndup(w.p, w.n);
			found(ctx, path);
		}
	}
}
