/* See requirements.h. */
#include "spaced/build/requirements.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

#define FILES_MAX 64
#define FILE_BYTES_MAX (1U << 20)
#define PACKAGES_MAX 500

void requirements_release(struct requirements *r)
{
	for (size_t i = 0; i < r->n; i++) {
		free(r->files[i].path);
		free(r->files[i].text);
	}
	free(r->files);
	*r = (struct requirements){0};
}

/* Editors of Windows put one before the first line; pip, uv and Hugging Face's builds take it for nothing. */
static struct str without_bom(struct str text)
{
	if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0)
		return (struct str){text.p + 3, text.n - 3};
	return text;
}

/* One logical line: backslash-newline joined, comment cut, trimmed. False at the end. */
static bool logical_line(struct str *text, struct buf *line)
{
	buf_clear(line);
	if (!text->n)
		return false;
	for (bool more = true; more && text->n;) {
		const char *nl = memchr(text->p, '\n', text->n);
		size_t n = nl ? (size_t)(nl - text->p) : text->n;
		const char *p = text->p;

		text->p += nl ? n + 1 : n;
		text->n -= nl ? n + 1 : n;
		if (n && p[n - 1] == '\r')
			n--;
		more = n && p[n - 1] == '\\';
		buf_add(line, p, more ? n - 1 : n);
	}
	for (size_t i = 0; i < line->len; i++) {
		if (line->data[i] == '#' && (i == 0 || isspace((unsigned char)line->data[i - 1]))) {
			line->len = i;
			break;
		}
	}
	while (line->len && isspace((unsigned char)line->data[line->len - 1]))
		line->len--;
	if (line->data)
		line->data[line->len] = '\0';
	size_t lead = 0;
	while (lead < line->len && isspace((unsigned char)line->data[lead]))
		lead++;
	buf_consume(line, lead);
	return true;
}

/* The value of an option in `line`: "-r x", "-rx", "--requirement x", "--requirement=x". NULL: another option. */
static const char *option(const char *line, const char *brief, const char *full)
{
	size_t b = strlen(brief), f = strlen(full);
	const char *v = NULL;

	if (strncmp(line, full, f) == 0 && (line[f] == '=' || isspace((unsigned char)line[f])))
		v = line + f + 1;
	else if (*brief && strncmp(line, brief, b) == 0 && line[b] && line[1] != '-')
		v = line + b;
	while (v && isspace((unsigned char)*v))
		v++;
	return v && *v ? v : NULL;
}

static bool is_url(const char *s)
{
	const char *colon = strstr(s, "://");

	return colon && strncmp(s, "file:", 5) != 0 && strcspn(s, " ") > (size_t)(colon - s);
}

static bool ends_with(const char *s, size_t n, const char *tail)
{
	size_t t = strlen(tail);
	return n >= t && memcmp(s + n - t, tail, t) == 0;
}

/* Does a requirement name code of the repository instead of a package of the index? */
static bool is_local(const char *line)
{
	static const char *const archives[] = {".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2"};
	size_t word = strcspn(line, " \t;");
	const char *at = strstr(line, " @ ");

	if (is_url(line) || strncmp(line, "git+", 4) == 0)
		return false;
	if (at)
		return strncmp(at + 3, "file:", 5) == 0;
	if (line[0] == '.' || line[0] == '/' || strncmp(line, "file:", 5) == 0)
		return true;
	for (size_t i = 0; i < sizeof archives / sizeof *archives; i++)
		if (ends_with(line, word, archives[i]))
			return true;
	/* "pkgs/mine": a requirement's name holds no slash outside of brackets and URLs */
	const char *slash = memchr(line, '/', word);
	return slash && !memchr(line, '@', word) && !memchr(line, '=', word);
}

/* `name` as seen from the folder of `from`, "." and ".." resolved. NULL: leaves the repository. malloc'd. */
static char *relative(const char *from, const char *name)
{
	struct buf b = BUF_INIT;
	const char *slash = strrchr(from, '/');
	cleanup_free char *joined = xasprintf("%.*s%s", slash ? (int)(slash - from + 1) : 0, from, name);

	if (name[0] == '/')
		return NULL;
	for (char *save = NULL, *part = strtok_r(joined, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		if (strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") != 0) {
			buf_addf(&b, "%s%s", b.len ? "/" : "", part);
			continue;
		}
		if (!b.len) {
			buf_release(&b);
			return NULL;
		}
		char *last = strrchr(b.data, '/');
		b.len = last ? (size_t)(last - b.data) : 0;
		b.data[b.len] = '\0';
	}
	return buf_steal(&b, NULL);
}

static int add_file(const struct tree *t, const char *path, const char *from, struct requirements *r, struct err *err)
{
	cleanup_buf struct buf text = BUF_INIT;

	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->files[i].path, path) == 0)
			return 0;
	if (r->n >= FILES_MAX)
		return err_set(err, 0, "%s: more than %d requirements files", from ? from : path, FILES_MAX);
	if (t->read(t->ctx, path, FILE_BYTES_MAX, &text, err) < 0) {
		if (err->code == ENOENT && from)
			return err_set(err, 0, "%s includes `%s`, which is not in the repository", from, path);
		return err_prefix(err, "%s", path);
	}
	r->files = xreallocarray(r->files, r->n + 1, sizeof *r->files);
	struct req_file *f = &r->files[r->n++];
	f->path = xstrdup(path);
	f->text = buf_steal(&text, &f->len);
	return 0;
}

static int scan_line(const struct tree *t, const char *path, const char *line, struct requirements *r, struct err *err)
{
	const char *v = option(line, "-r", "--requirement");

	if (!v)
		v = option(line, "-c", "--constraint");
	if (v) {
		if (is_url(v))
			return 0;
		cleanup_free char *p = relative(path, v);
		return p ? add_file(t, p, path, r, err) : err_set(err, 0, "%s: `%s` leaves the repository", path, line);
	}
	if ((v = option(line, "-e", "--editable")) || (v = option(line, "-f", "--find-links"))) {
		r->local |= !is_url(v) && strncmp(v, "git+", 4) != 0;
		return 0;
	}
	if (line[0] != '-')
		r->local |= is_local(line);
	return 0;
}

int requirements_read(const struct tree *t, const char *path, struct requirements *r, struct err *err)
{
	cleanup_buf struct buf line = BUF_INIT;
	size_t i = r->n;

	if (!t->has(t->ctx, path, false))
		return 0;
	if (add_file(t, path, NULL, r, err) < 0)
		return -1;
	for (; i < r->n; i++) { /* grows while it runs */
		struct str text = without_bom((struct str){r->files[i].text, r->files[i].len});
		while (logical_line(&text, &line)) {
			cleanup_free char *from = xstrdup(r->files[i].path);
			if (line.len && scan_line(t, from, line.data, r, err) < 0)
				return -1;
		}
	}
	return 0;
}

/* PEP 503: runs of -_. are one '-', case folded. */
static bool same_name(const char *line, const char *name)
{
	for (;; line++, name++) {
		char a = (char)tolower((unsigned char)*line);
		if (a == '_' || a == '.')
			a = '-';
		if (!*name)
			return !a || strchr("[=<>!~; @\t", a);
		if (a != *name)
			return false;
	}
}

bool requirements_name(const struct requirements *r, const char *name)
{
	cleanup_buf struct buf line = BUF_INIT;

	for (size_t i = 0; i < r->n; i++) {
		struct str text = without_bom((struct str){r->files[i].text, r->files[i].len});
		while (logical_line(&text, &line))
			if (line.len && same_name(line.data, name))
				return true;
	}
	return false;
}

/* Debian policy 5.6.1, with an optional :arch and =version as apt-get takes them. Never begins with '-': no option. */
static bool package_ok(const char *s)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789+.-");

	if (n < 2 || n > 100 || !strchr(first, s[0]))
		return false;
	if (s[n] == ':') {
		size_t arch = strspn(s + n + 1, first);
		if (!arch)
			return false;
		n += 1 + arch;
	}
	if (s[n] == '=') {
		size_t version =
		    strspn(s + n + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.+:~-");
		if (!version)
			return false;
		n += 1 + version;
	}
	return !s[n] && n <= 200;
}

int packages_read(struct str text, struct strings *out, struct err *err)
{
	cleanup_buf struct buf line = BUF_INIT;

	text = without_bom(text);
	while (logical_line(&text, &line)) {
		char *save = NULL;
		for (char *w = line.len ? strtok_r(line.data, " \t", &save) : NULL; w;
		     w = strtok_r(NULL, " \t", &save)) {
			if (!package_ok(w))
				return err_set(err, 0, "packages.txt: `%.100s` is not the name of a Debian package", w);
			if (out->n >= PACKAGES_MAX)
				return err_set(err, 0, "packages.txt: more than %d packages", PACKAGES_MAX);
			out->v = xreallocarray(out->v, out->n + 1, sizeof *out->v);
			out->v[out->n++] = xstrdup(w);
		}
	}
	return 0;
}

void packages_release(struct strings *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->v[i]);
	free(names->v);
	*names = (struct strings){0};
}
