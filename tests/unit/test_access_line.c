/* Lines of the access log: valid JSON whatever bytes come, one line each, without secrets; and what the daemon keeps of them. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <uv.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "proxy/access_line.h"
#include "spaced/access_file.h"

/* The line as an object; that it is one line of ASCII is checked. */
static json_t *line_of(const struct access_entry *e)
{
	cleanup_buf struct buf b = BUF_INIT;

	access_line(&b, e);
	for (size_t i = 0; i < b.len; i++)
		assert_true((b.data[i] >= 0x20 && b.data[i] < 0x7f) || (b.data[i] == '\n' && i == b.len - 1));
	json_t *j = json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
	assert_non_null(j);
	const char *space = json_string_value(json_object_get(j, "space"));
	assert_memory_equal(b.data + ACCESS_SPACE_AT, space, strlen(space));
	assert_int_equal(b.data[ACCESS_SPACE_AT + strlen(space)], '"');
	return j;
}

static void whole(void **state)
{
	const struct access_entry e = {.at = 1782864000123,
				       .space = STR("alice/hello"),
				       .host = STR("alice-hello.localhost"),
				       .method = STR("POST"),
				       .path = STR("/run?x=1"),
				       .agent = STR("curl/8"),
				       .client = STR("2001:db8::1"),
				       .request_id = STR("abc"),
				       .status = 503,
				       .minor = 1,
				       .refused = REFUSED_HELD,
				       .bytes_in = 1,
				       .bytes_out = 18446744073709551615ULL,
				       .duration_ms = 3,
				       .answered = true,
				       .upstream_ms = 0,
				       .held = true,
				       .held_ms = 9,
				       .woke = true,
				       .websocket = true,
				       .aborted = true,
				       .sample = 10};
	cleanup_buf struct buf b = BUF_INIT;

	access_line(&b, &e);
	assert_string_equal(
	    b.data,
	    "{\"time\":\"2026-07-01T00:00:00.123Z\",\"space\":\"alice/hello\",\"host\":\"alice-hello.localhost\","
	    "\"method\":\"POST\",\"path\":\"/run?x=1\",\"protocol\":\"HTTP/1.1\",\"status\":503,\"bytes_in\":1,"
	    "\"bytes_out\":18446744073709551615,\"duration_ms\":3,\"upstream_ms\":0,\"client\":\"2001:db8::1\","
	    "\"user_agent\":\"curl/8\",\"request_id\":\"abc\",\"held_ms\":9,\"woke\":true,\"websocket\":true,"
	    "\"aborted\":true,\"refused\":\"held\",\"sample\":10}\n");
}

static void what_is_not_there_is_left_out(void **state)
{
	const struct access_entry e = {.at = 1, .status = 400, .refused = REFUSED_MALFORMED, .detail = "no Host"};
	cleanup_buf struct buf b = BUF_INIT;

	access_line(&b, &e);
	assert_string_equal(b.data,
			    "{\"time\":\"1970-01-01T00:00:00.001Z\",\"space\":\"\",\"status\":400,\"bytes_in\":0,"
			    "\"bytes_out\":0,\"duration_ms\":0,\"refused\":\"malformed\",\"detail\":\"no Host\"}\n");
	buf_clear(&b);
	access_line_dropped(&b, 999, 12);
	assert_string_equal(b.data, "{\"time\":\"1970-01-01T00:00:00.999Z\",\"space\":\"\",\"dropped\":12}\n");
}

static void no_byte_leaves_its_string(void **state)
{
	char bytes[ACCESS_AGENT_MAX];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)i;
	const struct access_entry e = {
	    .space = STR("a/b"), .path = STR("/\",\"space\":\"x/y\\"), .agent = {bytes, sizeof bytes}, .status = 200};
	json_t *j = line_of(&e);
	assert_string_equal(json_string_value(json_object_get(j, "path")), "/\",\"space\":\"x/y\\");
	assert_string_equal(json_string_value(json_object_get(j, "space")), "a/b");
	/* Latin-1, which jansson holds as UTF-8. */
	assert_int_equal(json_string_length(json_object_get(j, "user_agent")), 128 + 2 * 128);
	json_decref(j);
}

static void long_ones_are_cut(void **state)
{
	cleanup_free char *path = malloc(8192), *agent = malloc(8192);

	memset(path, '/', 8192);
	memset(agent, 'a', 8192);
	const struct access_entry e = {.path = {path, 8192}, .agent = {agent, 8192}, .status = 200};
	json_t *j = line_of(&e);
	assert_int_equal(json_string_length(json_object_get(j, "path")), ACCESS_PATH_MAX);
	assert_int_equal(json_string_length(json_object_get(j, "user_agent")), ACCESS_AGENT_MAX);
	json_decref(j);
}

static void secrets_are_not_written(void **state)
{
	static const struct {
		const char *path, *written;
	} cases[] = {
	    {"/?__sign=abc", "/?__sign=***"},
	    {"/x?a=1&__sign=abc&b=2", "/x?a=1&__sign=***&b=2"},
	    {"/x?a=1;token=abc;b", "/x?a=1;token=***;b"},
	    {"/?Access_Token=", "/?Access_Token=***"},
	    {"/?%5f%5Fsign=abc", "/?%5f%5Fsign=***"},
	    {"/?%74oken=abc", "/?%74oken=***"},
	    {"/?password=a=b", "/?password=***"},
	    {"/?X-Amz-Signature=a&X-Amz-Credential=b", "/?X-Amz-Signature=***&X-Amz-Credential=***"},
	    {"/?session_hash=a", "/?session_hash=***"},
	    {"/?api-key=a&key=b&code=c&jwt=d", "/?api-key=***&key=***&code=***&jwt=***"},
	    {"/?q=hf_abcdefghijABCDEFGHIJ&x", "/?q=hf_***&x"},
	    {"/hf_abcdefghijABCDEFGHIJ/x?", "/hf_***/x?"},
	    {"/hf_abcdefghijABCDEFGHIJhf_abcdefghijABCDEFGHIJ", "/hf_***_abcdefghijABCDEFGHIJ"},
	    /* in an address within it: the link to sign in has one */
	    {"/sign-in?space=1&path=%2Fx%3Ftoken%3D2&b=3", "/sign-in?space=1&path=%2Fx%3F***&b=3"},
	    {"/?to=/a?token=2&b=3", "/?to=/a?token=***&b=3"},
	    /* and these are none */
	    {"/token/x?token", "/token/x?token"},
	    {"/hf_space/x?author=a&keys=b&%=%zz&=", "/hf_space/x?author=a&keys=b&%=%zz&="},
	    {"/?to=%2Fa%3F&b=%3", "/?to=%2Fa%3F&b=%3"},
	    {"*", "*"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct access_entry e = {.path = STRZ(cases[i].path), .status = 200};
		json_t *j = line_of(&e);
		assert_string_equal(json_string_value(json_object_get(j, "path")), cases[i].written);
		json_decref(j);
	}
}

/* From a process that is trusted less: nothing that would be read as another one's line, or as none. */
static void lines_of_others_are_looked_at(void **state)
{
	const struct access_entry e = {.space = STR("a/b"), .path = STR("/x"), .status = 200};
	cleanup_buf struct buf b = BUF_INIT;

	access_line(&b, &e);
	access_line_dropped(&b, 5, 6);
	access_line(&b, &e);
	struct str all = {b.data, b.len};
	assert_true(access_lines_ok(all, 3));
	assert_true(access_lines_ok((struct str){b.data, 0}, 0));
	assert_false(access_lines_ok(all, 2));
	assert_false(access_lines_ok(all, 4));
	assert_false(access_lines_ok((struct str){b.data, b.len - 1}, 3)); /* its end is missing */
	assert_false(access_lines_ok((struct str){b.data + 1, b.len - 1}, 3));
	for (size_t i = 0; i < b.len; i++) {
		char was = b.data[i];
		b.data[i] = '\033';
		assert_false(access_lines_ok(all, 3));
		b.data[i] = '\n';
		assert_false(was != '\n' && access_lines_ok(all, 3));
		b.data[i] = was;
	}
	b.data[ACCESS_SPACE_AT - 3] = 'x';
	assert_false(access_lines_ok(all, 3));

	buf_clear(&b);
	access_line(&b, &e);
	cleanup_free char *more = malloc(ACCESS_LINE_MAX);
	memset(more, ' ', ACCESS_LINE_MAX);
	b.len -= 2;
	buf_add(&b, more, ACCESS_LINE_MAX);
	buf_adds(&b, "}\n");
	assert_false(access_lines_ok((struct str){b.data, b.len}, 1));

	/* The longest there is. */
	char path[ACCESS_PATH_MAX], agent[ACCESS_AGENT_MAX], space[199], other[255];
	memset(path, 1, sizeof path);
	memset(agent, 1, sizeof agent);
	memset(space, 1, sizeof space);
	memset(other, 'x', sizeof other);
	const struct access_entry longest = {.space = {space, sizeof space},
					     .host = {other, 253},
					     .method = STR("OPTIONS"),
					     .path = {path, sizeof path},
					     .agent = {agent, sizeof agent},
					     .client = {other, 45},
					     .request_id = {other, sizeof other},
					     .detail = "a rule of so many words",
					     .status = 503};
	buf_clear(&b);
	access_line(&b, &longest);
	assert_true(access_lines_ok((struct str){b.data, b.len}, 1));
}

/* ---- the files ---- */

struct sink {
	char folder[64];
	uv_loop_t loop;
	struct access_file *file;
	unsigned written, lost;
};

static void on_written(void *ctx, uint64_t peer, uint32_t lost)
{
	struct sink *s = ctx;

	s->written++;
	s->lost += lost;
}

static void sink_open(struct sink *s, uint64_t room)
{
	struct err err = ERR_INIT;

	memset(s, 0, sizeof *s);
	snprintf(s->folder, sizeof s->folder, "/tmp/spaced-access-XXXXXX");
	assert_non_null(mkdtemp(s->folder));
	assert_int_equal(uv_loop_init(&s->loop), 0);
	s->file = access_file_new(&s->loop, s->folder, room, on_written, s, &err);
	assert_non_null(s->file);
}

static void sink_close(struct sink *s)
{
	access_file_free(s->file);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&s->loop), 0);
	assert_int_equal(io_remove_tree(AT_FDCWD, s->folder), 0);
}

static off_t size_of(const struct sink *s, const char *name, mode_t *mode)
{
	cleanup_free char *path = xasprintf("%s/%s", s->folder, name);
	struct stat st;

	if (stat(path, &st) < 0)
		return -1;
	*mode = st.st_mode & 07777;
	return st.st_size;
}

static void two_files_within_their_room(void **state)
{
	struct sink s;
	char block[1000];
	mode_t mode;

	sink_open(&s, 10000);
	memset(block, 'x', sizeof block);
	for (unsigned i = 0; i < 57; i++) {
		access_file_write(s.file, 1, (struct str){block, sizeof block}, 1);
		uv_run(&s.loop, UV_RUN_DEFAULT);
	}
	assert_int_equal(s.written, 57);
	assert_int_equal(s.lost, 0);
	assert_int_equal(size_of(&s, ACCESS_LOG_OLD, &mode), 5000);
	assert_int_equal(mode, 0600);
	assert_int_equal(size_of(&s, ACCESS_LOG_NAME, &mode), 2000);
	assert_int_equal(mode, 0600);
	/* Several at once are one after the other in the files, too. */
	for (unsigned i = 0; i < 4; i++)
		access_file_write(s.file, i, (struct str){block, sizeof block}, 1);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	assert_int_equal(s.written, 61);
	assert_int_equal(size_of(&s, ACCESS_LOG_NAME, &mode), 6000); /* not turned over under a write */
	access_file_write(s.file, 1, (struct str){block, sizeof block}, 1);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	assert_int_equal(size_of(&s, ACCESS_LOG_NAME, &mode), 1000);
	access_file_write(s.file, 1, (struct str){block, sizeof block}, 1); /* freed under it */
	sink_close(&s);
}

static void two_daemons_turn_it_over_once(void **state)
{
	struct sink s;
	struct err err = ERR_INIT;
	char block[1000];
	mode_t mode;

	sink_open(&s, 10000);
	struct access_file *other = access_file_new(&s.loop, s.folder, 10000, on_written, &s, &err);
	assert_non_null(other);
	memset(block, 'x', sizeof block);
	for (unsigned i = 0; i < 5; i++) {
		access_file_write(s.file, 1, (struct str){block, sizeof block}, 1);
		access_file_write(other, 1, (struct str){block, sizeof block}, 1);
		uv_run(&s.loop, UV_RUN_DEFAULT);
	}
	access_file_write(s.file, 1, (struct str){block, sizeof block}, 1);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	access_file_write(other, 1, (struct str){block, sizeof block}, 1);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	assert_int_equal(size_of(&s, ACCESS_LOG_OLD, &mode), 10000);
	assert_int_equal(size_of(&s, ACCESS_LOG_NAME, &mode), 2000);
	access_file_free(other);
	sink_close(&s);
}

static void without_its_folder_lines_are_lost(void **state)
{
	struct sink s;
	mode_t mode;

	sink_open(&s, 4);
	access_file_write(s.file, 1, STR("first\n"), 1);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	assert_int_equal(io_remove_tree(AT_FDCWD, s.folder), 0);
	access_file_write(s.file, 1, STR("second\nthird\n"), 2); /* the file is full: it has to be turned over */
	access_file_write(s.file, 1, STR("fourth\n"), 1);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	assert_int_equal(s.written, 3);
	assert_int_equal(s.lost, 3);
	assert_true(size_of(&s, ACCESS_LOG_NAME, &mode) < 0);
	sink_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(whole),
	    cmocka_unit_test(what_is_not_there_is_left_out),
	    cmocka_unit_test(no_byte_leaves_its_string),
	    cmocka_unit_test(long_ones_are_cut),
	    cmocka_unit_test(secrets_are_not_written),
	    cmocka_unit_test(lines_of_others_are_looked_at),
	    cmocka_unit_test(two_files_within_their_room),
	    cmocka_unit_test(two_daemons_turn_it_over_once),
	    cmocka_unit_test(without_its_folder_lines_are_lost),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
