/* Volumes over the spawner's channel: made, renamed, removed; the kernel enforces their size. */
#include "spawner_helper.h"

static uint64_t usage(const char *name)
{
	cleanup_buf struct buf none = BUF_INIT;
	uint32_t id = request(SPAWN_VOLUME_LIST, &none, NULL, 0);
	uint64_t found = UINT64_MAX;
	bool more = true;

	while (more) {
		struct frame f;
		assert_int_equal(answer(id, &f), 0);
		struct reader r = reader_of(f.payload, f.len);
		more = get_u8(&r);
		for (uint32_t n = get_u32(&r); n; n--) {
			char who[SANDBOX_NAME_MAX + 1];
			get_str(&r, who, sizeof who);
			uint64_t bytes = get_u64(&r);
			assert_int_not_equal(strncmp(who, "base-", 5), 0);
			assert_int_not_equal(strncmp(who, "skel-", 5), 0);
			if (strcmp(who, name) == 0)
				found = bytes;
		}
		assert_true(get_ok(&r));
		frame_release(&f);
	}
	return found;
}

static void test_names_and_sizes(void **unused)
{
	need_root();
	assert_int_equal(volume_make("tmp-a", 32 << 20), 0);
	assert_int_equal(volume_make("tmp-a", 32 << 20), EEXIST);
	assert_int_equal(volume_make("../a", 32 << 20), EBADMSG);
	assert_int_equal(volume_make("tmp-b", 10), EINVAL);
	assert_int_equal(volume_make("base-x", 32 << 20), EPERM);
	assert_true(usage("tmp-a") < 4 << 20); /* sparse */
	assert_int_equal(volume_move("tmp-a", "deps-1"), 0);
	assert_int_equal(volume_move("tmp-a", "deps-1"), ENOENT);
	assert_int_equal(volume_make("tmp-a", 32 << 20), 0);
	assert_int_equal(volume_move("tmp-a", "deps-1"), EEXIST);
	assert_int_equal(volume_move("tmp-a", "base-1"), EPERM);
	assert_int_equal(volume_make("skel-x", 32 << 20), EPERM);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "base-a-20260101000000", NULL), EPERM);
	assert_int_equal(call_name(SPAWN_BASE_REMOVE, "a", NULL), EBADMSG);
	assert_int_equal(call_name(SPAWN_BASE_REMOVE, "a-20260101000000", NULL), 0); /* not there */
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "tmp-a", NULL), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "tmp-a", NULL), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "deps-1", NULL), 0);
	assert_true(usage("deps-1") == UINT64_MAX);
}

/* A build writes its top until the kernel refuses; what it wrote is the next one's layer; space comes back. */
static void test_layer(void **unused)
{
	char *fill[] = {
	    "/bin/sh", "-c",
	    "echo hello >/app/greeting; dd if=/dev/zero of=/app/fill bs=64k 2>&1; rm /app/fill; echo end; sleep 1000",
	    NULL};
	char *read[] = {"/bin/sh", "-c",
			"cat /app/greeting; stat -c %u /app/greeting; echo x >/app/greeting && cat /app/greeting",
			NULL};
	struct sandbox_spec s = spec_of("build-1-a", fill);

	need_root();
	assert_int_equal(volume_make("tmp-l", 48 << 20), 0);
	s.top = "tmp-l";
	s.profile = SANDBOX_BUILD;
	assert_int_equal(start(&s), 0);
	assert_int_equal(volume_move("tmp-l", "src-l"), EBUSY);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "tmp-l", NULL), EBUSY);
	uint64_t end = io_now_ms() + DEADLINE_MS;
	free(log_text("build-1-a"));
	while (!lines_with(log_path, "end") && io_now_ms() < end)
		poll(NULL, 0, 10);
	assert_int_equal(lines_with(log_path, "end"), 1);
	assert_int_equal(lines_with(log_path, "No space left on device"), 1);
	assert_int_equal(call_stop("build-1-a", 0), 0);
	assert_true(wait_exit("build-1-a").stopped);
	assert_int_equal(volume_move("tmp-l", "src-l"), 0);
	assert_true(usage("src-l") < 4 << 20); /* the fill was given back to the host */

	s = spec_of("app-1-a", read);
	s.layers[0] = "src-l";
	s.nlayers = 1;
	assert_int_equal(start(&s), 0);
	assert_int_equal(wait_exit("app-1-a").status, 0);
	cleanup_free char *seen = log_text("app-1-a");
	assert_string_equal(seen, "hello\n1000\nx\n");
	s.layers[0] = "src-none";
	snprintf(s.name, sizeof s.name, "app-1-b");
	assert_int_equal(start(&s), ENOENT);
	assert_int_equal(listed("app-1-b"), -1);
	assert_int_equal(call_name(SPAWN_FORGET, "build-1-a", NULL), 0);
	assert_int_equal(call_name(SPAWN_FORGET, "app-1-a", NULL), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "src-l", NULL), 0);
	nothing_left();
}

/* An earlier spawner's sandbox holds the volume: the next spawner must not attach a second device to the image. */
static void test_one_device_per_image(void **unused)
{
	char *argv[] = {"/bin/sleep", "1000", NULL};
	struct sandbox_spec s = spec_of("app-2-a", argv);

	need_root();
	assert_int_equal(volume_make("src-d", 16 << 20), 0);
	s.layers[0] = "src-d";
	s.nlayers = 1;
	assert_int_equal(start(&s), 0);
	int before = loops();
	spawner_down(SIGKILL);
	spawner_up();
	snprintf(s.name, sizeof s.name, "app-2-b");
	assert_int_equal(start(&s), 0);
	assert_int_equal(loops(), before);
	assert_int_equal(call_stop("app-2-a", 0), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "src-d", NULL), EBUSY);
	assert_int_equal(call_stop("app-2-b", 0), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "src-d", NULL), 0);
	assert_int_equal(call_name(SPAWN_FORGET, "app-2-a", NULL), 0);
	assert_int_equal(call_name(SPAWN_FORGET, "app-2-b", NULL), 0);
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names_and_sizes),
	    cmocka_unit_test(test_layer),
	    cmocka_unit_test(test_one_device_per_image),
	};
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
