/* Persistent volumes: they survive restarts of apps and of the spawner and a loss of power, are shared by two instances while
 * one takes over from the other, are full at their size, and grow. */
#include "base/cleanup.h"
#include "spawner_helper.h"

#define MIB (1ULL << 20)

static int ensure(const char *name, uint64_t bytes)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	put_u64(&b, bytes);
	return answer(request(SPAWN_VOLUME_ENSURE, &b, NULL, 0), NULL);
}

static char *sh[] = {"/bin/sh", "-c", NULL, NULL};

static struct sandbox_spec spec_on(const char *name, const char *volume, char *script)
{
	sh[2] = script;
	struct sandbox_spec s = spec_of(name, sh);

	s.binds[0] = (struct sandbox_bind){.volume = (char *)(uintptr_t)volume, .target = "/data", .write = true};
	s.nbinds = 1;
	return s;
}

/* Runs it to its end; what it has printed. */
static char *run(const char *name, char *volume, char *script)
{
	struct sandbox_spec s = spec_on(name, volume, script);

	assert_int_equal(start(&s), 0);
	assert_int_equal(wait_exit(name).status, 0);
	assert_int_equal(call_name(SPAWN_FORGET, name, NULL), 0);
	return log_text(name);
}

static void await_line(const char *name, const char *what)
{
	uint64_t end = io_now_ms() + DEADLINE_MS;

	free(log_text(name));
	while (!lines_with(log_path, what) && io_now_ms() < end)
		poll(NULL, 0, 10);
	assert_true(lines_with(log_path, what));
}

static void remove_log(const char *name)
{
	snprintf(log_path, sizeof log_path, "%s/%s.log", state, name);
	unlink(log_path);
}

static void test_names_and_sizes(void **unused)
{
	need_root();
	assert_int_equal(ensure("data-a", 1 * MIB), EINVAL);
	assert_int_equal(ensure("top-a", 32 * MIB), EINVAL);
	assert_int_equal(ensure("data-a", 32 * MIB), 0);
	assert_int_equal(ensure("data-a", 32 * MIB), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-a", NULL), 0);
}

static void test_survives(void **unused)
{
	struct sandbox_spec s;

	need_root();
	assert_int_equal(ensure("data-b", 32 * MIB), 0);
	cleanup_free char *first =
	    run("app-1-1", "data-b", "ls -A /data; stat -c %u:%g /data; echo one >/data/a; sync");
	assert_string_equal(first, "1000:1000\n");
	/* two at the same time, as while one takes over: one file system */
	s = spec_on("app-1-2", "data-b",
		    "cat /data/a; until test -e /data/b; do sleep 0.05; done; cat /data/b; sleep 1000");
	assert_int_equal(start(&s), 0);
	await_line("app-1-2", "one");
	free(run("app-1-3", "data-b", "echo two >/data/b"));
	await_line("app-1-2", "two");
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-b", NULL), EBUSY);
	/* also when the spawner was replaced meanwhile */
	spawner_down(SIGKILL);
	spawner_up();
	remove_log("app-1-3");
	cleanup_free char *third = run("app-1-3", "data-b", "cat /data/a /data/b; echo three >/data/c");
	assert_string_equal(third, "one\ntwo\n");
	assert_int_equal(call_stop("app-1-2", 0), 0);
	wait_exit("app-1-2");
	assert_int_equal(call_name(SPAWN_FORGET, "app-1-2", NULL), 0);
	remove_log("app-1-3");
	cleanup_free char *last = run("app-1-3", "data-b", "cat /data/c");
	assert_string_equal(last, "three\n");
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-b", NULL), 0);
}

/* What was flushed is there after a loss of power: an image as it is at that moment, in the middle of use. */
static void test_power_is_lost(void **unused)
{
	struct sandbox_spec s = spec_on("app-2-1", "data-c",
					"for i in $(seq 200); do echo $i >/data/f$i; done; "
					"dd if=/dev/zero of=/data/z bs=64k count=20 conv=fsync 2>/dev/null; sync; "
					"echo flushed; while :; do echo x >/data/x; rm /data/x; done");
	char from[128], to[128];

	need_root();
	assert_int_equal(ensure("data-c", 32 * MIB), 0);
	assert_int_equal(start(&s), 0);
	await_line("app-2-1", "flushed");
	snprintf(from, sizeof from, "%s/volumes/data-c.img", state);
	snprintf(to, sizeof to, "%s/volumes/data-d.img", state);
	pid_t pid = fork();
	if (pid == 0) {
		execl("/bin/cp", "cp", "--sparse=always", from, to, NULL);
		_exit(1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(call_stop("app-2-1", 0), 0);
	wait_exit("app-2-1");
	assert_int_equal(call_name(SPAWN_FORGET, "app-2-1", NULL), 0);
	cleanup_free char *text = run("app-2-2", "data-d", "ls /data | grep -c ^f; cat /data/f200; stat -c %s /data/z");
	assert_string_equal(text, "200\n200\n1310720\n");
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-c", NULL), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-d", NULL), 0);
}

static struct disk_usage data_of(const char *name)
{
	struct disk_usage d;
	struct frame f;

	assert_int_equal(call_name(SPAWN_STATS, name, &f), 0);
	struct reader r = reader_of(f.payload, f.len);
	get_u64(&r), get_u64(&r), get_u32(&r);
	get_u64(&r), get_u64(&r), get_u64(&r), get_u64(&r);
	get_u32(&r), get_u32(&r);
	get_u64(&r), get_u64(&r), get_u64(&r), get_u64(&r);
	d.used = get_u64(&r);
	d.size = get_u64(&r);
	d.inodes_used = get_u64(&r);
	d.inodes = get_u64(&r);
	assert_false(r.bad);
	frame_release(&f);
	return d;
}

/* Full at its size; growing keeps what is in it: at once where the kernel lets us, else when nobody uses it. */
static void test_full_and_grown(void **unused)
{
	struct sandbox_spec s = spec_on(
	    "app-3-1", "data-e", "echo kept >/data/a; dd if=/dev/zero of=/data/fill bs=64k; echo full; sleep 1000");

	need_root();
	assert_int_equal(ensure("data-e", 32 * MIB), 0);
	assert_int_equal(start(&s), 0);
	await_line("app-3-1", "full");
	assert_true(lines_with(log_path, "No space left on device"));
	struct disk_usage d = data_of("app-3-1");
	assert_in_range(d.size, 20 * MIB, 32 * MIB);
	assert_in_range(d.used, d.size - d.size / 50, d.size);
	int online = ensure("data-e", 96 * MIB);
	print_message("# growing while it is in use: %s\n", online ? strerror(online) : "yes");
	assert_true(online == 0 || online == EBUSY);
	if (online == 0)
		assert_in_range(data_of("app-3-1").size, 80 * MIB, 96 * MIB);
	assert_int_equal(call_stop("app-3-1", 0), 0);
	wait_exit("app-3-1");
	assert_int_equal(call_name(SPAWN_FORGET, "app-3-1", NULL), 0);
	assert_int_equal(ensure("data-e", 96 * MIB), 0);
	assert_int_equal(ensure("data-e", 32 * MIB), 0); /* never smaller */
	cleanup_free char *text =
	    run("app-3-2", "data-e",
		"cat /data/a; dd if=/dev/zero of=/data/more bs=1M count=40 conv=fsync 2>/dev/null && echo room");
	assert_string_equal(text, "kept\nroom\n");
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-e", NULL), 0);
}

/* Without storage there is no /data: what is written there would be lost without a word. */
static void test_absent(void **unused)
{
	struct sandbox_spec s;

	need_root();
	sh[2] = "test -e /data || echo none; mkdir /data 2>/dev/null || echo refused";
	s = spec_of("app-4-1", sh);
	assert_int_equal(start(&s), 0);
	wait_exit("app-4-1");
	cleanup_free char *text = log_text("app-4-1");
	assert_string_equal(text, "none\nrefused\n");
	assert_int_equal(call_name(SPAWN_FORGET, "app-4-1", NULL), 0);
}

/* Sizes of which mke2fs would leave the rest away: then each start would have tried to grow the volume, and have failed
 * beside an instance that uses it. */
static void test_odd_sizes(void **unused)
{
	static const unsigned sizes[] = {129, 130, 135, 137, 300, 900, 1025, 1229};
	struct sandbox_spec s;

	need_root();
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		cleanup_free char *path = xasprintf("%s/volumes/data-f.img", state);
		uint32_t blocks = 0;

		assert_int_equal(ensure("data-f", sizes[i] * MIB), 0);
		int img = open(path, O_RDONLY | O_CLOEXEC);
		if (img < 0) /* folders are not bounded */
			break;
		assert_int_equal(pread(img, &blocks, sizeof blocks, 1024 + 4), sizeof blocks);
		close(img);
		assert_in_range(blocks * 4096ULL, sizes[i] * MIB, (sizes[i] + 11) * MIB);
		assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-f", NULL), 0);
	}
	/* grown to such a size */
	assert_int_equal(ensure("data-f", 64 * MIB), 0);
	assert_int_equal(ensure("data-f", 900 * MIB), 0);
	s = spec_on("app-5-1", "data-f", "sleep 1000");
	assert_int_equal(start(&s), 0);
	assert_int_equal(ensure("data-f", 900 * MIB), 0);
	assert_int_equal(call_stop("app-5-1", 0), 0);
	wait_exit("app-5-1");
	assert_int_equal(call_name(SPAWN_FORGET, "app-5-1", NULL), 0);
	assert_int_equal(call_name(SPAWN_VOLUME_REMOVE, "data-f", NULL), 0);
}

static void test_nothing_left(void **unused)
{
	need_root();
	nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names_and_sizes), cmocka_unit_test(test_survives),
	    cmocka_unit_test(test_power_is_lost),   cmocka_unit_test(test_full_and_grown),
	    cmocka_unit_test(test_absent),	    cmocka_unit_test(test_odd_sizes),
	    cmocka_unit_test(test_nothing_left),
	};
	return cmocka_run_group_tests(tests, state_make, state_remove);
}
