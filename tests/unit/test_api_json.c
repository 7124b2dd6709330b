/* The pure parts of the API: shapes as clients of the Hub read them, matching of routes, the limiter of wrong tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "spaced/api/api_int.h"

static const struct space_view view = {.public_url = "http://example.org:7000",
				       .domain = "example.org",
				       .sha = "0123456789abcdef0123456789abcdef01234567",
				       .serving = "89abcdef0123456789abcdef0123456789abcdef"};

static struct space space_of(enum space_stage stage)
{
	return (struct space){
	    .id = "0123456789abcdef01234567",
	    .owner_id = "aaaaaaaaaaaaaaaaaaaaaaaa",
	    .owner = (char *)"Alice",
	    .name = (char *)"My_App",
	    .label = (char *)"alice-my-app",
	    .stage = stage,
	    .stage_message = (char *)"",
	    .default_branch = (char *)"main",
	    .sdk = (char *)"gradio",
	    .card = (char *)"{\"title\":\"Hi\",\"tags\":[\"a\",7,\"b\"],\"license\":\"mit\",\"models\":[\"x/y\"]}",
	    .release_id = (char *)"",
	    .created = 1767323045678,
	    .modified = 1767323046000};
}

static const char *str_at(json_t *j, const char *a, const char *b)
{
	json_t *v = json_object_get(j, a);

	return json_string_value(b ? json_object_get(v, b) : v);
}

static void dates(void **state)
{
	json_t *j = json_date(1767323045678), *none = json_date(0);

	assert_string_equal(json_string_value(j), "2026-01-02T03:04:05.678Z");
	assert_true(json_is_null(none));
	json_decref(j);
}

static void url_is(const char *public_url, const char *want)
{
	const struct space_view v = {.public_url = public_url, .domain = "example.org"};
	cleanup_free char *url = json_app_url(&v, "a-b");

	assert_string_equal(url, want);
}

static void app_urls(void **state)
{
	url_is("http://example.org:7000", "http://a-b.example.org:7000");
	url_is("https://example.org", "https://a-b.example.org");
	url_is("https://example.org/", "https://a-b.example.org");
	url_is("http://[::1]:80/x", "http://a-b.example.org:80");
	url_is("http://[::1]", "http://a-b.example.org");
	url_is("example.org:7000", "http://a-b.example.org:7000");
}

static void info(void **state)
{
	struct space sp = space_of(STAGE_RUNNING);
	json_t *j = json_space(&sp, &view), *tags = json_object_get(j, "tags");

	assert_string_equal(str_at(j, "id", NULL), "Alice/My_App");
	assert_string_equal(str_at(j, "_id", NULL), sp.id);
	assert_string_equal(str_at(j, "author", NULL), "Alice");
	assert_string_equal(str_at(j, "sdk", NULL), "gradio");
	assert_string_equal(str_at(j, "subdomain", NULL), "alice-my-app");
	assert_string_equal(str_at(j, "host", NULL), "http://alice-my-app.example.org:7000");
	assert_string_equal(str_at(j, "sha", NULL), view.sha);
	assert_string_equal(str_at(j, "createdAt", NULL), "2026-01-02T03:04:05.678Z");
	assert_string_equal(str_at(j, "cardData", "title"), "Hi");
	assert_true(json_is_false(json_object_get(j, "private")));
	assert_int_equal(json_integer_value(json_object_get(j, "likes")), 0);
	assert_int_equal(json_array_size(tags), 4);
	assert_string_equal(json_string_value(json_array_get(tags, 3)), "license:mit");
	assert_int_equal(json_array_size(json_object_get(j, "models")), 1);
	assert_string_equal(str_at(j, "runtime", "stage"), "RUNNING");
	json_decref(j);
	/* A card that is damaged or no object loses nothing else. */
	sp.card = (char *)"[1,";
	j = json_space(&sp, &view);
	assert_true(json_is_object(json_object_get(j, "cardData")));
	json_decref(j);
}

static void runtime(void **state)
{
	struct space sp = space_of(STAGE_RUNNING);
	json_t *j = json_runtime(&sp, &view), *domains = json_object_get(j, "domains");

	assert_string_equal(str_at(j, "hardware", "current"), "cpu-basic");
	assert_string_equal(str_at(j, "hardware", "requested"), "cpu-basic");
	assert_true(json_is_null(json_object_get(j, "storage")));
	assert_true(json_is_null(json_object_get(j, "gcTimeout")));
	assert_true(json_is_false(json_object_get(j, "devMode")));
	assert_string_equal(str_at(j, "sha", NULL), view.serving);
	assert_null(json_object_get(j, "errorMessage"));
	assert_string_equal(str_at(json_array_get(domains, 0), "domain", NULL), "alice-my-app.example.org:7000");
	assert_string_equal(str_at(json_array_get(domains, 0), "stage", NULL), "READY");
	json_decref(j);

	/* hardware is an object at every stage, and `sha` is only there while something serves. */
	for (int st = STAGE_NO_APP_FILE; st <= STAGE_DELETING; st++) {
		sp.stage = (enum space_stage)st;
		sp.stage_message = (char *)"why";
		j = json_runtime(&sp, &view);
		bool live = !strncmp(str_at(j, "stage", NULL), "RUNNING", 7);
		assert_true(json_is_object(json_object_get(j, "hardware")));
		assert_int_equal(json_object_get(j, "sha") != NULL, live);
		assert_int_equal(json_object_get(j, "errorMessage") != NULL,
				 strstr(str_at(j, "stage", NULL), "ERROR") != NULL || st == STAGE_NO_APP_FILE);
		json_decref(j);
	}
	sp.sdk = (char *)"static";
	sp.stage = STAGE_RUNNING;
	j = json_runtime(&sp, &view);
	assert_true(json_is_object(json_object_get(j, "hardware")));
	assert_null(str_at(j, "hardware", "current"));
	json_decref(j);
}

static void expand(void **state)
{
	static const char *const two[] = {"likes", "sdk"}, *const wrong[] = {"likes", "secrets"};
	struct space sp = space_of(STAGE_BUILDING);
	json_t *j = json_space(&sp, &view);
	const char *bad = NULL;

	assert_false(json_space_expand(j, wrong, 2, &bad));
	assert_string_equal(bad, "secrets");
	assert_true(json_space_expand(j, two, 2, &bad));
	assert_int_equal(json_object_size(j), 4);
	assert_string_equal(str_at(j, "id", NULL), "Alice/My_App");
	json_decref(j);
}

static void whoami(void **state)
{
	struct user u = {.id = "0123456789abcdef01234567", .name = (char *)"alice", .created = 1767323045678};
	json_t *j = json_whoami(&u, "http://example.org:7000");

	assert_string_equal(str_at(j, "name", NULL), "alice");
	assert_string_equal(str_at(j, "type", NULL), "user");
	assert_true(json_is_object(json_object_get(j, "auth")));
	assert_string_equal(str_at(json_object_get(j, "auth"), "accessToken", "role"), "write");
	json_decref(j);
}

static void records(void **state)
{
	struct build b = {.id = "b",
			  .commit = "c",
			  .cause = (char *)"push",
			  .state = BUILD_QUEUED,
			  .phase = (char *)"queued",
			  .error = (char *)"",
			  .queued = 1767323045678};
	struct release r = {.id = "r", .build_id = "b", .commit = "c", .recipe = (char *)"not json", .created = 1};
	json_t *j = json_build(&b, "alice/x", 3);

	assert_string_equal(str_at(j, "state", NULL), "queued");
	assert_int_equal(json_integer_value(json_object_get(j, "position")), 3);
	assert_true(json_is_null(json_object_get(j, "finishedAt")));
	assert_true(json_is_null(json_object_get(j, "error")));
	json_decref(j);
	b.error = (char *)"\xff\xfe";
	j = json_build(&b, NULL, 0);
	assert_non_null(str_at(j, "error", NULL));
	json_decref(j);
	j = json_release(&r, true);
	assert_true(json_is_null(json_object_get(j, "recipe")));
	json_decref(j);
}

/* ---- routes ---- */

static void free_vars(char *vars[API_VARS])
{
	for (size_t i = 0; i < API_VARS; i++)
		free(vars[i]);
}

static void routes_match(void **state)
{
	char *vars[API_VARS];

	assert_true(route_match("/", STR("/"), vars));
	assert_false(route_match("/", STR("/x"), vars));
	assert_false(route_match("/api/spaces", STR("/api/spacesx"), vars));
	assert_true(route_match("/api/spaces", STR("/api/spaces/"), vars));
	assert_true(route_match("/api/spaces/:o/:n", STR("/api/spaces/alice/My.App"), vars));
	assert_string_equal(vars[0], "alice");
	assert_string_equal(vars[1], "My.App");
	free_vars(vars);
	assert_false(route_match("/api/spaces/:o/:n", STR("/api/spaces/alice/x/y"), vars));
	assert_false(route_match("/api/spaces/:o/:n", STR("/api/spaces/alice"), vars));
	assert_false(route_match("/api/spaces/:o/:n", STR("/api/spaces//x"), vars));
	/* An encoded slash stays inside its segment; a NUL or a broken escape matches nothing. */
	assert_true(route_match("/r/:rev", STR("/r/refs%2Fpr%2F1"), vars));
	assert_string_equal(vars[0], "refs/pr/1");
	free_vars(vars);
	assert_false(route_match("/r/:rev", STR("/r/a%00b"), vars));
	assert_false(route_match("/r/:rev", STR("/r/a%zz"), vars));
	assert_false(route_match("/r/:rev", STR(""), vars));
	assert_false(route_match("/r/:rev", STR("*"), vars));
}

/* The table: whoever writes to a Space or to the whole is checked by the dispatcher. */
static void routes_are_guarded(void **state)
{
	for (const struct route_row *row = route_rows; row->method; row++) {
		assert_non_null(row->handle);
		if (!strncmp(row->pattern, "/api/admin", 10))
			assert_int_equal(row->access, ACCESS_ADMIN);
		/* Signing in and out is about the browser that asks, and nothing else; a settings form brings its token along, which
		 * its handler judges (test_sleep.py: of nobody's, of a stranger's, from elsewhere). */
		if (strcmp(row->method, "GET") != 0 && strncmp(row->pattern, "/sign-", 6) != 0 &&
		    row->handle != page_settings_post)
			assert_int_not_equal(row->access, ACCESS_OPEN);
		if (row->access == ACCESS_SPACE_READ || row->access == ACCESS_SPACE_WRITE)
			assert_non_null(strstr(row->pattern, "/:owner/:name"));
	}
}

static void escapes(void **state)
{
	cleanup_buf struct buf out = BUF_INIT;

	html_escape(&out, "<script>'\"&x");
	assert_string_equal(out.data, "&lt;script&gt;&#39;&quot;&amp;x");
}

/* ---- the limiter ---- */

static void limits_wrong_tokens(void **state)
{
	static struct limiter l;
	uint64_t now = 1000000;
	char token[32];

	limiter_init(&l);
	for (int i = 0; i < LIMITER_BAD_MAX; i++) {
		snprintf(token, sizeof(token), "Bearer wrong%d", i);
		assert_false(limiter_known_bad(&l, STRZ(token), now));
		assert_int_equal(limiter_bad(&l, STR("192.0.2.1"), STRZ(token), now), 0);
		assert_true(limiter_known_bad(&l, STRZ(token), now));
	}
	assert_in_range(limiter_bad(&l, STR("192.0.2.1"), STR("x"), now + 30000), 1, 30);
	/* Neither another address nor the next window pays for it. */
	assert_int_equal(limiter_bad(&l, STR("192.0.2.2"), STR("x"), now), 0);
	assert_int_equal(limiter_bad(&l, STR("192.0.2.1"), STR("x"), now + LIMITER_WINDOW_MS), 0);
	assert_false(limiter_known_bad(&l, STRZ(token), now + LIMITER_WINDOW_MS));
	/* IPv6: one client is a /64. */
	for (int i = 0; i < LIMITER_BAD_MAX; i++) {
		snprintf(token, sizeof(token), "2001:db8::%x", i);
		assert_int_equal(limiter_bad(&l, STRZ(token), STR("x"), now), 0);
	}
	assert_true(limiter_bad(&l, STR("2001:db8::ffff"), STR("x"), now) > 0);
	assert_int_equal(limiter_bad(&l, STR("2001:db8:0:1::1"), STR("x"), now), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(dates),
	    cmocka_unit_test(app_urls),
	    cmocka_unit_test(info),
	    cmocka_unit_test(runtime),
	    cmocka_unit_test(expand),
	    cmocka_unit_test(whoami),
	    cmocka_unit_test(records),
	    cmocka_unit_test(routes_match),
	    cmocka_unit_test(routes_are_guarded),
	    cmocka_unit_test(escapes),
	    cmocka_unit_test(limits_wrong_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
