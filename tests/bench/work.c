/* See work.h. Each batch takes some milliseconds. */
#include "tests/bench/work.h"

#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/io.h"

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* What a program does most: small reads and writes of what is open, and questions that the kernel answers at once. */
static void syscalls(void)
{
	static int zero = -1, null = -1;
	struct stat st;
	char buf[512];

	if (zero < 0) {
		zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	}
	for (int i = 0; i < 5000; i++) {
		syscall(SYS_getpid);
		if (read(zero, buf, sizeof buf) != sizeof buf || write(null, buf, sizeof buf) != sizeof buf ||
		    fstat(zero, &st) < 0)
			_exit(1);
	}
}

/* A server on loopback and its client in one: a question of 1 KiB, the wait for it, an answer of 1 KiB. */
static void messages(void)
{
	static int client = -1, server, loop;
	struct epoll_event event = {.events = EPOLLIN};
	char buf[1024] = {0};

	if (client < 0) {
		struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t size = sizeof here;
		int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		loop = epoll_create1(EPOLL_CLOEXEC);
		if (bind(listener, (struct sockaddr *)&here, size) < 0 || listen(listener, 1) < 0 ||
		    getsockname(listener, (struct sockaddr *)&here, &size) < 0 ||
		    connect(client, (struct sockaddr *)&here, size) < 0 ||
		    (server = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0 ||
		    epoll_ctl(loop, EPOLL_CTL_ADD, server, &event) < 0)
			_exit(1);
		close(listener);
	}
	for (int i = 0; i < 500; i++)
		if (send(client, buf, sizeof buf, 0) != sizeof buf || epoll_wait(loop, &event, 1, -1) != 1 ||
		    recv(server, buf, sizeof buf, 0) != sizeof buf || send(server, buf, sizeof buf, 0) != sizeof buf ||
		    recv(client, buf, sizeof buf, MSG_WAITALL) != sizeof buf)
			_exit(1);
}

/* A database's pages: written and read again, 4 KiB each, in a file that stays in memory. */
static void blocks(void)
{
	static int file = -1;
	char page[4096] = {0};

	if (file < 0)
		file = memfd_create("blocks", MFD_CLOEXEC);
	for (int i = 0; i < 4000; i++) {
		off_t at = (off_t)(i * 37 % 1024) * (off_t)sizeof page;
		if (pwrite(file, page, sizeof page, at) != sizeof page ||
		    pread(file, page, sizeof page, at) != sizeof page)
			_exit(1);
	}
}

/* Some hundred small files that are there wherever the driver of this runs. */
static const char *small_files(void)
{
	static glob_t found;

	if (found.gl_pathc == 0 && (glob("/usr/lib/python3.*/encodings", 0, NULL, &found) != 0 || found.gl_pathc == 0))
		_exit(1);
	return found.gl_pathv[0];
}

static void one_file(int dir, const char *name)
{
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	char page[4096];
	struct stat st;

	for (int i = 0; i < 4; i++)
		if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			_exit(1);
	while (S_ISREG(st.st_mode) && read(fd, page, sizeof page) > 0)
		;
}

static void files(void)
{
	cleanup_dir DIR *dir = opendir(small_files());

	for (struct dirent *e; dir && (e = readdir(dir));)
		one_file(dirfd(dir), e->d_name);
}

static void tar(void)
{
	const char *const argv[] = {"tar", "-C", small_files(), "-c", ".", NULL};
	posix_spawn_file_actions_t actions;
	int out[2], status = -1;
	char block[65536];
	pid_t pid;

	if (pipe2(out, O_CLOEXEC) < 0 || posix_spawn_file_actions_init(&actions) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, out[1], 1) != 0 ||
	    posix_spawn(&pid, "/usr/bin/tar", &actions, NULL, (char *const *)(uintptr_t)argv, environ) != 0)
		_exit(1);
	posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	while (read(out[0], block, sizeof block) > 0)
		;
	close(out[0]);
	if (waitpid(pid, &status, 0) < 0 || status != 0)
		_exit(1);
}

static void cpu(void)
{
	static uint32_t table[1 << 16];
	volatile uint32_t out;
	uint32_t x = 1;

	for (int i = 0; i < 5000000; i++) {
		x = x * 1664525U + 1013904223U;
		table[x >> 16] += x;
	}
	out = table[x >> 16];
	(void)out;
}

int work_loop(int in, int out)
{
	char kind;

	while (read(in, &kind, 1) == 1) {
		uint64_t t = now_ns();
		if (kind == 's')
			syscalls();
		else if (kind == 'm')
			messages();
		else if (kind == 'b')
			blocks();
		else if (kind == 'f')
			files();
		else if (kind == 't')
			tar();
		else
			cpu();
		t = now_ns() - t;
		if (io_write_full(out, &t, sizeof t) < 0)
			return 1;
	}
	return 0;
}
