/* Layer keys, and what the recipes put into them: a change of code alone must not change the key of an installed layer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "spaced/build/recipe.h"
#include "tests/unit/life_tree.h"

static char *python_list[] = {(char *)"3.11", (char *)"3.13"};

static const char *on_base = "host debian 12 x86_64";

static struct tools machine(bool uv)
{
	struct tools t = {.python = "3.11",
			  .pythons = {python_list, 2},
			  .python_stamp = "1-1",
			  .node_stamp = "1-1",
			  .uv = uv,
			  .node = true,
			  .npm = true,
			  .apt = true};

	snprintf(t.base, sizeof t.base, "%s", on_base);
	return t;
}

/* 0 and the recipe, or -1 with err. */
static int make(const char *header, const struct fake_file *files, bool uv, struct recipe *r, struct err *err)
{
	struct tools tools = machine(uv);
	struct tree t = fake_tree(files);
	struct verdict v;
	struct card c;
	struct buf readme = BUF_INIT;

	*err = ERR_INIT;
	buf_addf(&readme, "---\n%s\n---\n", header);
	assert_int_equal(card_parse((struct str){readme.data, readme.len}, &c, err), 0);
	kind_decide(&c, &t, &v);
	int rc = recipe_make(&c, &v, &t, &tools, r, err);
	verdict_release(&v);
	card_release(&c);
	buf_release(&readme);
	return rc;
}

static const struct layer_plan *layer(const struct recipe *r, const char *prefix)
{
	for (size_t i = 0; i < r->nlayers; i++)
		if (strcmp(r->layers[i].prefix, prefix) == 0)
			return &r->layers[i];
	return NULL;
}

static char *line_of(char *const *argv)
{
	struct buf b = BUF_INIT;

	for (size_t i = 0; argv[i]; i++)
		buf_addf(&b, "%s%s", i ? " " : "", argv[i]);
	return buf_steal(&b, NULL);
}

static void hash_is_unambiguous(void **state)
{
	struct layer_hash h;
	char a[LAYER_KEY], b[LAYER_KEY], c[LAYER_KEY];

	(void)state;
	layer_hash_init(&h, "x");
	layer_hash_adds(&h, "ab", "c");
	layer_hash_final(&h, a);
	layer_hash_init(&h, "x");
	layer_hash_adds(&h, "a", "bc");
	layer_hash_final(&h, b);
	layer_hash_init(&h, "x");
	layer_hash_adds(&h, "ab", "c");
	layer_hash_final(&h, c);
	assert_string_not_equal(a, b);
	assert_string_equal(a, c);
	assert_int_equal(strlen(a), 64);
}

static void code_does_not_change_the_key(void **state)
{
	const struct fake_file one[] = {{"app.py", "a"}, {"requirements.txt", "flask\n"}, {0}};
	const struct fake_file two[] = {{"app.py", "b"}, {"requirements.txt", "flask\n"}, {"x", "y"}, {0}};
	const struct fake_file other[] = {{"app.py", "a"}, {"requirements.txt", "flask==3\n"}, {0}};
	struct recipe a, b, c, d, e;
	struct err err;

	(void)state;
	assert_int_equal(make("sdk: gradio\nsdk_version: 5.0.0", one, false, &a, &err), 0);
	assert_int_equal(make("sdk: gradio\nsdk_version: 5.0.0\ntitle: T", two, false, &b, &err), 0);
	assert_int_equal(make("sdk: gradio\nsdk_version: 5.0.0", other, false, &c, &err), 0);
	assert_int_equal(make("sdk: gradio\nsdk_version: 5.0.1", one, false, &d, &err), 0);
	assert_int_equal(make("sdk: gradio\nsdk_version: 5.0.0\npython_version: 3.13", one, false, &e, &err), 0);
	assert_string_equal(layer(&a, "deps")->key, layer(&b, "deps")->key);
	assert_string_not_equal(layer(&a, "deps")->key, layer(&c, "deps")->key);
	assert_string_not_equal(layer(&a, "deps")->key, layer(&d, "deps")->key);
	assert_string_not_equal(layer(&a, "deps")->key, layer(&e, "deps")->key);
	assert_string_equal(layer(&a, "src")->key, ""); /* the source is a build's own */
	recipe_release(&a);
	recipe_release(&b);
	recipe_release(&c);
	recipe_release(&d);
	recipe_release(&e);
}

/* Same commit, another base or another version of it: nothing of what was installed fits. */
static void the_base_changes_every_key(void **state)
{
	static const char *const bases[] = {"host debian 12 x86_64", "own-20260101000000 x86_64",
					    "own-20260102000000 x86_64", "other-20260101000000 x86_64"};
	static const char *const prefixes[] = {"pkgs", "deps", "node"};
	const struct fake_file files[] = {{"Procfile", "web: x\n"},
					  {"packages.txt", "figlet\n"},
					  {"requirements.txt", "flask\n"},
					  {"package.json", "{}"},
					  {0}};
	char keys[4][3][LAYER_KEY];
	struct err err;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct recipe r;
		on_base = bases[i];
		assert_int_equal(make("title: x", files, false, &r, &err), 0);
		for (size_t k = 0; k < 3; k++)
			memcpy(keys[i][k], layer(&r, prefixes[k])->key, LAYER_KEY);
		recipe_release(&r);
		for (size_t j = 0; j < i; j++)
			for (size_t k = 0; k < 3; k++)
				assert_string_not_equal(keys[i][k], keys[j][k]);
	}
	on_base = bases[0];
}

static void included_files_change_it(void **state)
{
	const struct fake_file one[] = {{"app.py", ""}, {"requirements.txt", "-r b.txt\n"}, {"b.txt", "flask\n"}, {0}};
	const struct fake_file two[] = {{"app.py", ""}, {"requirements.txt", "-r b.txt\n"}, {"b.txt", "django\n"}, {0}};
	struct recipe a, b;
	struct err err;

	(void)state;
	assert_int_equal(make("title: x", one, false, &a, &err), 0);
	assert_int_equal(make("title: x", two, false, &b, &err), 0);
	assert_string_not_equal(layer(&a, "deps")->key, layer(&b, "deps")->key);
	recipe_release(&a);
	recipe_release(&b);
}

static void local_code_takes_the_tree(void **state)
{
	const struct fake_file files[] = {{"app.py", ""}, {"requirements.txt", "-e .\n"}, {0}};
	struct recipe r;
	struct err err;
	bool tree = false;

	(void)state;
	assert_int_equal(make("title: x", files, false, &r, &err), 0);
	for (size_t i = 0; i < layer(&r, "deps")->nsteps; i++)
		tree |= layer(&r, "deps")->steps[i].input_kind == INPUT_TREE;
	assert_true(tree);
	recipe_release(&r);
}

static void gradio_line(void **state)
{
	const struct fake_file files[] = {{"app.py", ""},
					  {"requirements.txt", "numpy\n"},
					  {"pre-requirements.txt", "pip>=24\n"},
					  {"packages.txt", "ffmpeg\n"},
					  {0}};
	struct recipe r;
	struct err err;

	(void)state;
	assert_int_equal(make("sdk: gradio\nsdk_version: 5.49.1", files, false, &r, &err), 0);
	assert_int_equal(r.nlayers, 3);
	assert_string_equal(r.layers[0].prefix, "pkgs");
	assert_int_equal(r.layers[0].steps[1].profile, SANDBOX_BUILD_ROOT);
	const struct layer_plan *l = layer(&r, "deps");
	const struct step *last = &l->steps[l->nsteps - 1];
	cleanup_free char *main_line = line_of(last->argv);
	cleanup_free char *pre_line = line_of(last[-1].argv);
	assert_string_equal(main_line, "pip install -r requirements.txt gradio[oauth,mcp]==5.49.1 uvicorn>=0.14.0 "
				       "websockets>=10.4 spaces");
	assert_string_equal(pre_line, "pip install -r pre-requirements.txt");
	cleanup_free char *fallback = line_of(last->fallback);
	assert_string_equal(fallback, "pip install -r requirements.txt gradio==5.49.1");
	cleanup_free char *run = line_of(r.argv);
	assert_string_equal(run, "python app.py");
	assert_int_equal(r.port, 7860);
	recipe_release(&r);
}

static void python_versions(void **state)
{
	const struct fake_file files[] = {{"app.py", ""}, {0}};
	struct recipe r;
	struct err err;

	(void)state;
	assert_int_equal(make("sdk: gradio\npython_version: 3.10", files, false, &r, &err), -1);
	assert_string_equal(err.msg,
			    "Python 3.10 is not on this machine (found: 3.11, 3.13): set `python_version: \"3.11\"` in "
			    "README.md or install it");
	recipe_release(&r);
	assert_int_equal(make("sdk: gradio\npython_version: 3.10", files, true, &r, &err), 0); /* uv may get it */
	assert_string_equal(layer(&r, "deps")->steps[0].argv[0], "uv");
	assert_true(layer(&r, "deps")->steps[0].internet);
	recipe_release(&r);
	assert_int_equal(make("sdk: gradio\npython_version: 3.13.2", files, false, &r, &err), 0);
	assert_string_equal(layer(&r, "deps")->steps[0].argv[0], "python3.13");
	recipe_release(&r);
}

static void node_recipe(void **state)
{
	const struct fake_file plain[] = {
	    {"package.json", "{\"scripts\":{\"start\":\"node .\"}}"}, {"package-lock.json", "{}"}, {0}};
	const struct fake_file hooks[] = {
	    {"package.json", "{\"scripts\":{\"start\":\"x\",\"postinstall\":\"y\",\"build\":\"z\"}}"}, {0}};
	const struct fake_file broken[] = {{"Procfile", "web: x"}, {"package.json", "[1"}, {0}};
	struct recipe r;
	struct err err;

	(void)state;
	assert_int_equal(make("title: x", plain, false, &r, &err), 0);
	cleanup_free char *install = line_of(layer(&r, "node")->steps[1].argv);
	assert_string_equal(install, "npm ci --omit=dev");
	assert_int_equal(layer(&r, "node")->steps[0].input_kind, INPUT_BYTES);
	recipe_release(&r);
	assert_int_equal(make("title: x", hooks, false, &r, &err), 0);
	cleanup_free char *again = line_of(layer(&r, "node")->steps[1].argv);
	assert_string_equal(again, "npm install --include=dev"); /* the build script needs them */
	assert_int_equal(layer(&r, "node")->steps[0].input_kind, INPUT_TREE);
	assert_int_equal(layer(&r, "src")->nsteps, 2);
	recipe_release(&r);
	assert_int_equal(make("title: x", broken, false, &r, &err), -1);
	assert_non_null(strstr(err.msg, "package.json line"));
	recipe_release(&r);
}

static void static_recipe(void **state)
{
	const struct fake_file files[] = {{"pages/a.html", ""}, {"package.json", "{}"}, {0}};
	struct recipe r;
	struct err err;

	(void)state;
	assert_int_equal(make("sdk: static\napp_file: pages/a.html", files, false, &r, &err), 0);
	assert_int_equal(r.nlayers, 0);
	assert_non_null(strstr(r.site_json, "\"redirect\":\"pages/a.html\""));
	recipe_release(&r);
	assert_int_equal(
	    make("sdk: static\napp_build_command: npm run build\napp_file: dist/index.html", files, false, &r, &err),
	    0);
	const struct layer_plan *l = layer(&r, "src");
	assert_true(l->scratch);
	cleanup_free char *build = line_of(l->steps[1].argv);
	cleanup_free char *publish = line_of(l->steps[2].argv);
	assert_string_equal(build, "sh -c npm run build");
	assert_string_equal(publish, "tar -c -C /app/dist .");
	assert_true(l->steps[2].output_site);
	recipe_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(hash_is_unambiguous),
	    cmocka_unit_test(code_does_not_change_the_key),
	    cmocka_unit_test(the_base_changes_every_key),
	    cmocka_unit_test(included_files_change_it),
	    cmocka_unit_test(local_code_takes_the_tree),
	    cmocka_unit_test(gradio_line),
	    cmocka_unit_test(python_versions),
	    cmocka_unit_test(node_recipe),
	    cmocka_unit_test(static_recipe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
