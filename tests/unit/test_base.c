/* base/: buffers, errors, frames with descriptors, files beneath a directory. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/confine.h"
#include "base/err.h"
#include "base/frame.h"
#include "base/io.h"
#include "base/resolve.h"

static void buf_grows_and_shrinks(void **state)
{
	cleanup_buf struct buf b = BUF_INIT;

	for (int i = 0; i < 1000; i++)
		buf_addf(&b, "%d,", i);
	assert_int_equal(b.len, strlen(b.data));
	buf_consume(&b, 2);
	assert_memory_equal(b.data, "1,2,", 4);
	buf_consume(&b, b.len + 5);
	assert_int_equal(b.len, 0);
	size_t n;
	cleanup_free char *s = buf_steal(&b, &n);
	assert_string_equal(s, "");
	assert_null(b.data);
}

static void errors_keep_their_context(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(err_set(&err, ENOENT, "open `%s`", "x"), -1);
	err_prefix(&err, "start `%s`", "y");
	assert_string_equal(err.msg, "start `y`: open `x`: No such file or directory");
	assert_int_equal(err.code, ENOENT);
	char longer[2000];
	memset(longer, 'a', sizeof longer - 1);
	longer[sizeof longer - 1] = 0;
	err_set(&err, 0, "%s", longer);
	err_prefix(&err, "%s", longer);
	assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
}

static void frame_round_trip(void **state)
{
	int sv[2], p[2];
	cleanup_buf struct buf b = BUF_INIT;
	struct frame f;
	char text[16];

	assert_int_equal(frame_pair(sv), 0);
	assert_int_equal(pipe(p), 0);
	put_u8(&b, 7);
	put_u32(&b, 70000);
	put_u64(&b, 1ULL << 40);
	put_str(&b, "hello");
	put_str(&b, NULL);
	assert_int_equal(frame_send(sv[0], 3, 9, b.data, b.len, p, 2), 0);
	assert_int_equal(frame_recv(sv[1], &f), 1);
	assert_int_equal(f.type, 3);
	assert_int_equal(f.id, 9);
	assert_int_equal(f.nfds, 2);
	assert_true(fcntl(f.fds[0], F_GETFD) & FD_CLOEXEC);
	struct reader r = reader_of(f.payload, f.len);
	assert_int_equal(get_u8(&r), 7);
	assert_int_equal(get_u32(&r), 70000);
	assert_true(get_u64(&r) == 1ULL << 40);
	assert_true(get_str(&r, text, sizeof text));
	assert_string_equal(text, "hello");
	cleanup_free char *empty = get_strdup(&r, 5);
	assert_string_equal(empty, "");
	assert_true(get_ok(&r));
	int taken = frame_take_fd(&f, 1);
	assert_true(taken >= 0);
	assert_int_equal(frame_take_fd(&f, 1), -1);
	assert_int_equal(frame_take_fd(&f, 2), -1);
	int other = f.fds[0];
	frame_release(&f);
	assert_int_equal(fcntl(other, F_GETFD), -1);
	close(taken);
	close(sv[0]);
	assert_int_equal(frame_recv(sv[1], &f), 0);
	close(sv[1]);
	close(p[0]);
	close(p[1]);
}

/* A process whose table of descriptors is full hears which frame has lost them, and goes on to hear the next one. */
static void descriptors_without_room(void **state)
{
	struct rlimit before, now;
	struct frame f;
	int sv[2], p[2];

	assert_int_equal(frame_pair(sv), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(frame_send(sv[0], 3, 9, "x", 1, p, 2), 0);
	assert_int_equal(frame_send(sv[0], 4, 10, NULL, 0, NULL, 0), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	now = before;
	now.rlim_cur = (rlim_t)p[1] + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
	int r = frame_recv(sv[1], &f);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(r, -EMFILE);
	assert_int_equal(f.type, 3);
	assert_int_equal(f.id, 9);
	assert_int_equal(f.nfds, 0);
	assert_int_equal(frame_recv(sv[1], &f), 1);
	assert_int_equal(f.type, 4);
	frame_release(&f);
	close(sv[0]);
	close(sv[1]);
	close(p[0]);
	close(p[1]);
}

/* Whatever a less trusted peer sends, no descriptor stays open and nothing is read beyond the end. */
static void malformed_frames_are_refused(void **state)
{
	int sv[2];
	struct frame f;
	uint8_t junk[64] = {1, 2, 3};

	assert_int_equal(frame_pair(sv), 0);
	for (size_t n = 1; n < sizeof junk; n++) {
		assert_int_equal(send(sv[0], junk, n, 0), (int)n);
		assert_int_equal(frame_recv(sv[1], &f), -EBADMSG);
	}
	uint32_t head[5] = {0x53504344U, 1, 1, 8, 0}; /* says 8 bytes, carries 4 */
	assert_int_equal(send(sv[0], head, sizeof head, 0), (int)sizeof head);
	assert_int_equal(frame_recv(sv[1], &f), -EBADMSG);
	struct reader r = reader_of("\xff\xff\xff\xff", 4);
	assert_int_equal(get_bytes(&r).n, 0);
	assert_true(r.bad);
	r = reader_of("\x02\0\0\0a", 5);
	assert_null(get_strdup(&r, 10));
	r = reader_of("\x02\0\0\0a\0", 6); /* a NUL inside */
	char text[8];
	assert_false(get_str(&r, text, sizeof text));
	r = reader_of("\x08\0\0\0abcdefgh", 12); /* does not fit with its NUL */
	assert_false(get_str(&r, text, sizeof text));
	r = reader_of("\1\2", 2);
	get_u8(&r);
	assert_false(get_ok(&r)); /* something is left */
	close(sv[0]);
	close(sv[1]);
}

static void full_frames_fit_and_larger_ones_do_not(void **state)
{
	int sv[2];
	struct frame f;
	cleanup_free uint8_t *big = xcalloc(1, FRAME_MAX_PAYLOAD + 1);

	assert_int_equal(frame_pair(sv), 0);
	assert_int_equal(frame_send(sv[0], 1, 1, big, FRAME_MAX_PAYLOAD, NULL, 0), 0);
	assert_int_equal(frame_recv(sv[1], &f), 1);
	assert_int_equal(f.len, FRAME_MAX_PAYLOAD);
	frame_release(&f);
	assert_int_equal(frame_send(sv[0], 1, 1, big, FRAME_MAX_PAYLOAD + 1, NULL, 0), -EMSGSIZE);
	close(sv[0]);
	close(sv[1]);
}

static char dir[] = "/tmp/spaced-base-XXXXXX";
static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}
static int teardown(void **state)
{
	return io_remove_tree(AT_FDCWD, dir);
}

static void opening_beneath_never_leaves(void **state)
{
	cleanup_close int d = open(dir, O_RDONLY | O_DIRECTORY);

	assert_int_equal(io_mkdir(d, "in", 0755), 0);
	assert_int_equal(io_mkdir(d, "in", 0755), 0);
	assert_int_equal(io_write_file(d, "in/f", "x", 1, 0600), 0);
	assert_int_equal(symlinkat("/etc/passwd", d, "in/abs"), 0);
	assert_int_equal(symlinkat("f", d, "in/rel"), 0);
	cleanup_close int in = resolve_beneath(d, "in", O_RDONLY | O_DIRECTORY);
	assert_true(in >= 0);
	cleanup_close int f = resolve_beneath(in, "f", O_RDONLY);
	assert_true(f >= 0);
	assert_int_equal(resolve_beneath(in, "abs", O_RDONLY), -ELOOP);
	assert_int_equal(resolve_beneath(in, "rel", O_RDONLY), -ELOOP);
	assert_int_equal(resolve_beneath(in, "../in/f", O_RDONLY), -EXDEV);
	assert_int_equal(resolve_beneath(in, "/etc/passwd", O_RDONLY), -EXDEV);
	cleanup_buf struct buf b = BUF_INIT;
	assert_int_equal(io_read_file(in, "f", 0, &b), -EFBIG);
	buf_clear(&b);
	assert_int_equal(io_read_file(in, "f", 1, &b), 0);
	assert_string_equal(b.data, "x");
	assert_int_equal(io_read_file(in, "rel", 10, &b), -ELOOP);
	assert_int_equal(io_read_named("/proc/self/exe", 1, &b), -EFBIG);
}

static void removing_a_tree_spares_what_links_point_to(void **state)
{
	cleanup_close int d = open(dir, O_RDONLY | O_DIRECTORY);
	struct stat st;

	assert_int_equal(io_mkdir(d, "keep", 0755), 0);
	assert_int_equal(io_write_file(d, "keep/f", "x", 1, 0600), 0);
	assert_int_equal(io_mkdir(d, "gone", 0755), 0);
	assert_int_equal(io_mkdir(d, "gone/deep", 0500), 0);
	assert_int_equal(symlinkat("../keep", d, "gone/link"), 0);
	assert_int_equal(io_remove_tree(d, "gone"), 0);
	assert_int_equal(fstatat(d, "gone", &st, 0), -1);
	assert_int_equal(fstatat(d, "keep/f", &st, 0), 0);
	assert_int_equal(io_remove_tree(d, "gone"), 0);
}

/* A role that is taken over must not get capabilities in a user namespace of its own. */
static void no_namespaces_after_confinement(void **state)
{
	struct err err = ERR_INIT;
	int status;

	pid_t pid = fork();
	if (pid == 0) {
		if (confine_syscalls(PROMISE_INET, &err) < 0)
			_exit(1);
		if (syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0) >= 0 || errno != EPERM)
			_exit(2);
		if (syscall(SYS_clone3, NULL, 0) >= 0 || errno != ENOSYS)
			_exit(3);
		pid_t child = fork();
		if (child == 0)
			_exit(0);
		_exit(child > 0 && waitpid(child, NULL, 0) == child ? 0 : 4);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_false(WIFSIGNALED(status));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(buf_grows_and_shrinks),
	    cmocka_unit_test(errors_keep_their_context),
	    cmocka_unit_test(frame_round_trip),
	    cmocka_unit_test(descriptors_without_room),
	    cmocka_unit_test(malformed_frames_are_refused),
	    cmocka_unit_test(full_frames_fit_and_larger_ones_do_not),
	    cmocka_unit_test(no_namespaces_after_confinement),
	    cmocka_unit_test(opening_beneath_never_leaves),
	    cmocka_unit_test(removing_a_tree_spares_what_links_point_to),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
