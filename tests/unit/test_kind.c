/* Which kind of app a commit is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "spaced/build/kind.h"
#include "tests/unit/life_tree.h"

struct row {
	const char *header;
	struct fake_file files[4];
	enum kind kind;
	const char *app_file, *command, *why;
};

static const struct row rows[] = {
    /* by the header */
    {"sdk: static", {{"index.html", ""}}, KIND_STATIC, "index.html", NULL, NULL},
    {"sdk: static\napp_file: docs/a.html", {{"docs/a.html", ""}}, KIND_STATIC, "docs/a.html", NULL, NULL},
    {"sdk: static", {{"a.html", ""}}, KIND_NONE, NULL, NULL, "index.html"},
    {"sdk: static\napp_build_command: npm run build\napp_file: dist/index.html",
     {{"package.json", "{}"}},
     KIND_STATIC_BUILD,
     "dist/index.html",
     "npm run build",
     NULL},
    {"sdk: static\napp_build_command: make\napp_file: ../x.html", {{"Makefile", ""}}, KIND_BAD, NULL, NULL, "inside"},
    {"sdk: gradio", {{"app.py", ""}, {"Procfile", "web: x"}}, KIND_GRADIO, "app.py", NULL, NULL},
    {"sdk: gradio\napp_file: demo/run.py", {{"demo/run.py", ""}}, KIND_GRADIO, "demo/run.py", NULL, NULL},
    {"sdk: gradio", {{"main.py", ""}}, KIND_NONE, NULL, NULL, "missing an app file: `app.py`"},
    {"sdk: gradio\napp_file: a/../../b.py", {{"b.py", ""}}, KIND_BAD, NULL, NULL, "inside"},
    {"sdk: gradio\napp_file: /etc/passwd", {{"b.py", ""}}, KIND_BAD, NULL, NULL, "inside"},
    {"sdk: streamlit", {{"app.py", ""}}, KIND_STREAMLIT, "app.py", NULL, NULL},
    {"sdk: docker", {{"Dockerfile", ""}}, KIND_DOCKER, NULL, NULL, "not built here yet"},
    {"sdk: rails", {{"app.py", ""}}, KIND_BAD, NULL, NULL, "rails"},
    /* a header without sdk, or none: by the files */
    {"title: x", {{"app.py", ""}}, KIND_PYTHON, "app.py", NULL, NULL},
    {NULL,
     {{"Procfile", "worker: x\nweb: gunicorn app:app\r\n"}, {"app.py", ""}},
     KIND_PROCFILE,
     NULL,
     "gunicorn app:app",
     NULL},
    {NULL, {{"Procfile", "worker: x\n"}, {"app.py", ""}}, KIND_NONE, NULL, NULL, "web:"},
    {NULL, {{"Procfile", "\xef\xbb\xbfweb: x\r\n"}}, KIND_PROCFILE, NULL, "x", NULL},
    {NULL, {{"Procfile", "web: x \xff\xfe\n"}}, KIND_BAD, NULL, NULL, "UTF-8"},
    {NULL, {{"package.json", "{\"scripts\":{\"start\":\"node .\"}}"}, {"app.py", ""}}, KIND_NODE, NULL, NULL, NULL},
    {NULL, {{"package.json", "{\"scripts\":{}}"}, {"app.py", ""}}, KIND_PYTHON, "app.py", NULL, NULL},
    {NULL, {{"package.json", "not json"}, {"index.html", ""}}, KIND_STATIC, "index.html", NULL, NULL},
    {NULL, {{"requirements.txt", ""}, {"app.py", ""}}, KIND_PYTHON, "app.py", NULL, NULL},
    {NULL, {{"Dockerfile", ""}, {"index.html", ""}}, KIND_DOCKER, NULL, NULL, "not built here yet"},
    {NULL, {{"LICENSE", ""}}, KIND_NONE, NULL, NULL, "Procfile"},
};

static void all_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const struct row *r = &rows[i];
		struct tree t = fake_tree(r->files);
		struct verdict v;
		struct card c;
		struct err err = ERR_INIT;
		struct buf readme = BUF_INIT;

		if (r->header)
			buf_addf(&readme, "---\n%s\n---\n", r->header);
		else
			buf_adds(&readme, "# Hello\n");
		assert_int_equal(card_parse((struct str){readme.data, readme.len}, &c, &err), 0);
		kind_decide(&c, &t, &v);
		if (v.kind != r->kind)
			fail_msg("row %zu: kind %d, expected %d (%s)", i, v.kind, r->kind, v.why);
		if (r->app_file)
			assert_string_equal(v.app_file, r->app_file);
		if (r->command)
			assert_string_equal(v.command, r->command);
		if (r->why && !strstr(v.why, r->why))
			fail_msg("row %zu: `%s` lacks `%s`", i, v.why, r->why);
		verdict_release(&v);
		card_release(&c);
		buf_release(&readme);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(all_rows)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
