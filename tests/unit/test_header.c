/* README.md's header: every key, what is wrong but taken, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "spaced/space/header.h"

static int parse(const char *text, struct card *c, struct err *err)
{
	*err = ERR_INIT;
	return card_parse(STRZ(text), c, err);
}

static void every_key(void **state)
{
	static const char text[] =
	    "---\ntitle: My App\nemoji: \xf0\x9f\x9a\x80\ncolorFrom: red\ncolorTo: gray\nsdk: gradio\nsdk_version: "
	    "5.49.1\n"
	    "python_version: 3.10\napp_file: ./src/app.py\napp_build_command: npm run build\napp_port: 8080\n"
	    "base_path: /ui\nmodels:\n- a/b\n- c/d\ndatasets: [x/y]\ntags: [one, 2]\nthumbnail: "
	    "https://example.org/t.png\n"
	    "short_description: short\npinned: true\nfullWidth: false\nheader: mini\nsuggested_hardware: t4-small\n"
	    "suggested_storage: small\nstartup_duration_timeout: 1h\ncustom_headers:\n  cross-origin-embedder-policy: "
	    "require-corp\n  cross-origin-opener-policy: same-origin\n  cross-origin-resource-policy: cross-origin\n"
	    "preload_from_hub:\n- a/b f1,f2\ndisable_embedding: true\nhf_oauth: true\nhf_oauth_scopes: [email]\n"
	    "hf_oauth_expiration_minutes: 60\nhf_oauth_authorized_org: acme\nlicense: mit\nmetaTitle: T\ndescription: "
	    "D\n"
	    "dev-mode-folder: src\nunknown_key: {a: [1, 2.5, null]}\n---\n# Body\n---\nsdk: docker\n";
	struct card c;
	struct err err;

	(void)state;
	assert_int_equal(parse(text, &c, &err), 0);
	assert_true(c.present);
	assert_int_equal(c.warnings.n, 0);
	assert_string_equal(c.title, "My App");
	assert_string_equal(c.emoji, "\xf0\x9f\x9a\x80");
	assert_string_equal(c.color_from, "red");
	assert_string_equal(c.color_to, "gray");
	assert_string_equal(c.sdk, "gradio");
	assert_string_equal(c.sdk_version, "5.49.1");
	assert_string_equal(c.python_version, "3.10"); /* not 3.1 */
	assert_string_equal(c.app_file, "src/app.py");
	assert_string_equal(c.app_build_command, "npm run build");
	assert_int_equal(c.app_port, 8080);
	assert_string_equal(c.base_path, "/ui");
	assert_int_equal(c.models.n, 2);
	assert_string_equal(c.models.v[1], "c/d");
	assert_string_equal(c.datasets.v[0], "x/y");
	assert_string_equal(c.tags.v[1], "2");
	assert_string_equal(c.thumbnail, "https://example.org/t.png");
	assert_true(c.pinned);
	assert_false(c.full_width);
	assert_string_equal(c.header, "mini");
	assert_int_equal(c.startup_timeout_s, 3600);
	assert_string_equal(c.coep, "require-corp");
	assert_string_equal(c.coop, "same-origin");
	assert_string_equal(c.corp, "cross-origin");
	assert_string_equal(c.preload_from_hub.v[0], "a/b f1,f2");
	assert_true(c.disable_embedding);
	assert_true(c.hf_oauth);
	assert_int_equal(c.hf_oauth_expiration_minutes, 60);
	assert_string_equal(c.hf_oauth_authorized_org.v[0], "acme");
	assert_string_equal(c.license, "mit");
	assert_string_equal(c.dev_mode_folder, "src");
	char *json = card_json(&c);
	assert_non_null(strstr(json, "\"unknown_key\":{\"a\":[1,2.5,null]}"));
	assert_non_null(strstr(json, "\"python_version\":\"3.10\""));
	free(json);
	char *headers = card_response_headers(&c, "http://localhost:7000");
	assert_string_equal(headers, "cross-origin-embedder-policy: require-corp\r\n"
				     "cross-origin-opener-policy: same-origin\r\n"
				     "cross-origin-resource-policy: cross-origin\r\n"
				     "content-security-policy: frame-ancestors 'self' http://localhost:7000\r\n");
	free(headers);
	card_release(&c);
}

static void no_block(void **state)
{
	static const char *const texts[] = {"", "# Title\n", "\n---\nsdk: static\n---\n", "--- \n"};
	struct card c;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_int_equal(parse(texts[i], &c, &err), 0);
		assert_false(c.present);
		assert_null(c.sdk);
		char *json = card_json(&c);
		assert_string_equal(json, "{}");
		free(json);
		card_release(&c);
	}
}

static void forms_of_block(void **state)
{
	static const char *const texts[] = {"---\nsdk: static\n---\n", "\xef\xbb\xbf---\nsdk: static\n---\n",
					    "---\r\nsdk: static\r\n---\r\n# x\r\n", "---  \nsdk: \"static\"\n---",
					    "---\n{sdk: static}\n---\n"};
	struct card c;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_int_equal(parse(texts[i], &c, &err), 0);
		assert_true(c.present);
		assert_string_equal(c.sdk, "static");
		card_release(&c);
	}
	assert_int_equal(parse("---\n---\n", &c, &err), 0);
	assert_true(c.present);
	card_release(&c);
}

static void warned_not_refused(void **state)
{
	static const struct {
		const char *line, *word;
	} cases[] = {
	    {"colorFrom: mauve", "colorFrom"},
	    {"short_description: this text is far longer than the sixty characters that are allowed", "60"},
	    {"sdk_version: latest please", "sdk_version"},
	    {"python_version: '2.7'", "python_version"},
	    {"app_port: 70000", "app_port"},
	    {"app_port: -1", "app_port"},
	    {"base_path: ui", "base_path"},
	    {"pinned: maybe", "pinned"},
	    {"header: huge", "header"},
	    {"startup_duration_timeout: soon", "startup_duration_timeout"},
	    {"custom_headers: {x-frame-options: deny}", "custom_headers"},
	    {"custom_headers: {cross-origin-opener-policy: \"a\\r\\nb: c\"}", "cross-origin-opener-policy"},
	    {"title: [a]", "title"},
	    {"hf_oauth_expiration_minutes: 99999999", "hf_oauth_expiration_minutes"},
	    {"sdk: static\nsdk: static", "twice"},
	};
	struct card c;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct buf b = BUF_INIT;
		buf_addf(&b, "---\n%s\n---\n", cases[i].line);
		assert_int_equal(parse(b.data, &c, &err), 0);
		assert_int_equal(c.warnings.n, 1);
		assert_non_null(strstr(c.warnings.v[0], cases[i].word));
		assert_null(c.coop);
		card_release(&c);
		buf_release(&b);
	}
}

static void refused_with_line(void **state)
{
	static const struct {
		const char *text, *word;
	} cases[] = {
	    {"---\nsdk: gradio\ntitle: My App: the best\n---\n", "line 3"},
	    {"---\ntitle: \"open\n---\n", "line"},
	    {"---\n- a\n- b\n---\n", "line 2"},
	    {"---\njust text\n---\n", "line 2"},
	    {"---\na: &x [1]\nb: *x\n---\n", "aliases"},
	    {"---\na: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n---\n", "deep"},
	    {"---\ntitle: \xff\xfe\n---\n", "UTF-8"},
	    {"---\n\tsdk: x\n---\n", "line"},
	    {"---\n? [a]\n: b\n---\n", "key"},
	    {"---\na: \"x\\0y\"\n---\n", "NUL"},
	};
	struct card c;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(parse(cases[i].text, &c, &err), -1);
		assert_non_null(strstr(err.msg, "README.md"));
		if (!strstr(err.msg, cases[i].word))
			fail_msg("%zu: `%s` lacks `%s`", i, err.msg, cases[i].word);
		card_release(&c);
	}
}

static void bounded(void **state)
{
	struct buf b = BUF_INIT;
	struct card c;
	struct err err;

	(void)state;
	buf_adds(&b, "---\na: [");
	for (int i = 0; i < 5000; i++)
		buf_adds(&b, "1,");
	buf_adds(&b, "1]\n---\n");
	assert_int_equal(parse(b.data, &c, &err), -1);
	card_release(&c);
	buf_clear(&b);
	buf_adds(&b, "---\na: \"");
	for (int i = 0; i < 70000; i++)
		buf_addc(&b, 'x');
	buf_adds(&b, "\"\n---\n");
	assert_int_equal(parse(b.data, &c, &err), -1);
	card_release(&c);
	buf_release(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_key),	  cmocka_unit_test(no_block),	       cmocka_unit_test(forms_of_block),
	    cmocka_unit_test(warned_not_refused), cmocka_unit_test(refused_with_line), cmocka_unit_test(bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
