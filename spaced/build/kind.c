/* See kind.h. */
#include "spaced/build/kind.h"

#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <string.h>

#include "base/cleanup.h"

const char *kind_name(enum kind k)
{
	static const char *const names[] = {"",		 "",	     "static", "static", "gradio",
					    "streamlit", "procfile", "node",   "python", "docker"};
	return names[k];
}

void verdict_release(struct verdict *v)
{
	free(v->app_file);
	free(v->command);
	*v = (struct verdict){0};
}

static void __attribute__((format(printf, 3, 4))) refuse(struct verdict *v, enum kind kind, const char *fmt, ...)
{
	va_list ap;

	v->kind = kind;
	va_start(ap, fmt);
	vsnprintf(v->why, sizeof v->why, fmt, ap);
	va_end(ap);
}

/* A path below the repository's root: relative, without "..". */
static bool path_inside(const char *p)
{
	if (!*p || *p == '/')
		return false;
	for (const char *s = p; s; s = strchr(s, '/')) {
		s += *s == '/';
		if (strncmp(s, "..", 2) == 0 && (s[2] == '/' || !s[2]))
			return false;
	}
	return true;
}

bool procfile_web(struct str text, struct buf *command)
{
	if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0) { /* Windows' editors */
		text.p += 3;
		text.n -= 3;
	}
	while (text.n) {
		const char *nl = memchr(text.p, '\n', text.n);
		size_t n = nl ? (size_t)(nl - text.p) : text.n;
		const char *line = text.p;

		text.p += nl ? n + 1 : n;
		text.n -= nl ? n + 1 : n;
		if (n < 4 || memcmp(line, "web:", 4) != 0 || memchr(line, '\0', n))
			continue;
		line += 4;
		n -= 4;
		while (n && isspace((unsigned char)line[n - 1]))
			n--;
		while (n && isspace((unsigned char)*line)) {
			line++;
			n--;
		}
		if (n)
			buf_add(command, line, n);
		return n > 0;
	}
	return false;
}

static bool has(const struct tree *t, const char *path)
{
	return t->has(t->ctx, path, false);
}

static bool has_start_script(const struct tree *t)
{
	cleanup_buf struct buf b = BUF_INIT;
	struct err err = ERR_INIT;

	if (!has(t, "package.json") || t->read(t->ctx, "package.json", 1 << 20, &b, &err) < 0)
		return false;
	json_t *j = json_loadb(b.data ? b.data : "", b.len, 0, NULL);
	bool found = json_is_string(json_object_get(json_object_get(j, "scripts"), "start"));
	json_decref(j);
	return found;
}

/* The main file of an sdk whose app_file must be in the repository. */
static void main_file(const struct card *card, const struct tree *t, enum kind kind, const char *standard,
		      struct verdict *v)
{
	const char *file = card->app_file ? card->app_file : standard;

	if (!path_inside(file)) {
		refuse(v, KIND_BAD, "`app_file: %.100s` must be a path inside the repository", file);
	} else if (!has(t, file)) {
		refuse(v, KIND_NONE, "This Space is missing an app file: `%.100s` is not in the repository. Push it%s",
		       file,
		       card->app_file ? ", or correct `app_file` in README.md."
				      : ", or name your main file with `app_file` in README.md.");
	} else {
		v->kind = kind;
		v->app_file = xstrdup(file);
	}
}

static void decide_static(const struct card *card, const struct tree *t, struct verdict *v)
{
	if (!card->app_build_command) {
		main_file(card, t, KIND_STATIC, "index.html", v);
		return;
	}
	const char *file = card->app_file ? card->app_file : "index.html";
	if (!path_inside(file)) {
		refuse(v, KIND_BAD, "`app_file: %.100s` must be a path inside the build's output", file);
		return;
	}
	v->kind = KIND_STATIC_BUILD;
	v->app_file = xstrdup(file);
	v->command = xstrdup(card->app_build_command);
}

static void decide_by_header(const struct card *card, const struct tree *t, struct verdict *v)
{
	if (strcmp(card->sdk, "static") == 0)
		decide_static(card, t, v);
	else if (strcmp(card->sdk, "gradio") == 0)
		main_file(card, t, KIND_GRADIO, "app.py", v);
	else if (strcmp(card->sdk, "streamlit") == 0)
		main_file(card, t, KIND_STREAMLIT, "app.py", v);
	else if (strcmp(card->sdk, "docker") == 0)
		refuse(v, KIND_DOCKER,
		       "`sdk: docker` is recognised, but images are not built here yet. "
		       "Use `sdk: gradio` for any Python web server, or a Procfile.");
	else
		refuse(v, KIND_BAD, "`sdk: %.60s` is not one of gradio, streamlit, docker, static", card->sdk);
}

static bool decide_procfile(const struct tree *t, struct verdict *v)
{
	cleanup_buf struct buf text = BUF_INIT;
	cleanup_buf struct buf command = BUF_INIT;
	struct err err = ERR_INIT;

	if (!has(t, "Procfile"))
		return false;
	if (t->read(t->ctx, "Procfile", 65536, &text, &err) < 0 ||
	    !procfile_web((struct str){text.data ? text.data : "", text.len}, &command)) {
		refuse(v, KIND_NONE, "The Procfile has no `web:` line. Add one, for example `web: python app.py`.");
		return true;
	}
	json_t *text_ok = json_stringn(command.data, command.len); /* as which the release will keep it */
	json_decref(text_ok);
	if (!text_ok) {
		refuse(v, KIND_BAD, "The Procfile's `web:` line is not UTF-8.");
		return true;
	}
	v->kind = KIND_PROCFILE;
	v->command = buf_steal(&command, NULL);
	return true;
}

static void decide_by_files(const struct tree *t, struct verdict *v)
{
	if (decide_procfile(t, v))
		return;
	if (has_start_script(t)) {
		v->kind = KIND_NODE;
	} else if (has(t, "app.py")) {
		v->kind = KIND_PYTHON;
		v->app_file = xstrdup("app.py");
	} else if (has(t, "Dockerfile")) {
		refuse(v, KIND_DOCKER,
		       "A Dockerfile is recognised, but images are not built here yet. "
		       "Use `sdk: gradio` for any Python web server, or a Procfile.");
	} else if (has(t, "index.html")) {
		v->kind = KIND_STATIC;
		v->app_file = xstrdup("index.html");
	} else {
		refuse(v, KIND_NONE,
		       "This Space is missing an app file. Push a README.md with `sdk:` in its header, or one of: a "
		       "Procfile "
		       "with a `web:` line, a package.json with a `start` script, an app.py, an index.html.");
	}
}

void kind_decide(const struct card *card, const struct tree *tree, struct verdict *out)
{
	*out = (struct verdict){0};
	if (card->sdk)
		decide_by_header(card, tree, out);
	else
		decide_by_files(tree, out);
}
