/* The static role as a whole: static_main() in a child process on a folder of sites, asked over its socket. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/static/static.h"

#define PATIENCE_MS 60000

static struct {
	char dir[64];
	struct sockaddr_un addr;
	pid_t pid;
	int parent;
	bool xattrs;
} rig;

static void put_n(const char *path, const char *text, size_t n)
{
	cleanup_free char *full = xasprintf("%s/%s", rig.dir, path);

	for (char *p = full + strlen(rig.dir) + 1; (p = strchr(p, '/')); *p++ = '/') {
		*p = '\0';
		mkdir(full, 0755);
	}
	assert_int_equal(io_write_file(AT_FDCWD, full, text, n, 0644), 0);
}

static void put(const char *path, const char *text)
{
	put_n(path, text, strlen(text));
}

static char *big;    /* 3 MiB of noise */
static char *script; /* 100 KiB of text */
enum { BIG = 3 * 1024 * 1024, SCRIPT = 100 * 1024 };

static void make_sites(void)
{
	put("one/site.json", "{}");
	put("one/files/index.html", "<h1>one</h1>");
	put("one/files/README.md", "# readme");
	put("one/files/.env", "SECRET=1");
	put("one/files/.git/config", "x");
	put("one/files/.gitattributes", "x");
	put("one/files/.well-known/a.txt", "known");
	put("one/files/sub/index.html", "<h1>sub</h1>");
	put("one/files/noindex/a.txt", "a");
	put("one/files/a b&c.txt", "odd name");
	put("one/files/empty.txt", "");
	put("one/files/main.0123456789abcdef0.js", "1");
	put("secret.txt", "outside");
	put("two/site.json", "{\"root\":\"dist\",\"index\":\"main.html\",\"headers\":{\"X-Own\":\"yes\",\"Cache-"
			     "Control\":\"no-store\"}}");
	put("two/files/dist/main.html", "<h1>two</h1>");
	put("two/files/dist/404.html", "<h1>own 404</h1>");
	put("two/files/package.json", "{}");
	put("three/site.json", "{\"redirect\":\"pages/a b.html\"}");
	put("three/files/pages/a b.html", "<h1>three</h1>");
	big = malloc(BIG);
	for (size_t i = 0; i < BIG; i++)
		big[i] = (char)(i * 2654435761U >> 13);
	put_n("one/files/big.bin", big, BIG);
	script = malloc(SCRIPT);
	for (size_t i = 0; i < SCRIPT; i++)
		script[i] = "let spaces = 'spaces and more'; // "[i % 35];
	put_n("one/files/app.js", script, SCRIPT);
	cleanup_free char *inside = xasprintf("%s/one/files/link.txt", rig.dir);
	cleanup_free char *outside = xasprintf("%s/one/files/out.txt", rig.dir);
	assert_int_equal(symlink("a b&c.txt", inside), 0);
	assert_int_equal(symlink("../../secret.txt", outside), 0);
	cleanup_free char *sum = xasprintf("%s/one/files/index.html", rig.dir);
	rig.xattrs = setxattr(sum, "user.spaced.sha256",
			      "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", 64, 0) == 0;
}

static int setup(void **state)
{
	int sv[2];

	(void)state;
	memcpy(rig.dir, "/tmp/test-static-XXXXXX", 24);
	assert_non_null(mkdtemp(rig.dir));
	make_sites();
	rig.addr.sun_family = AF_UNIX;
	snprintf(rig.addr.sun_path, sizeof rig.addr.sun_path, "%s/.sock", rig.dir);
	int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(l, (struct sockaddr *)&rig.addr, sizeof rig.addr), 0);
	assert_int_equal(listen(l, 16), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	rig.pid = fork();
	if (rig.pid == 0) {
		close(sv[0]);
		_exit(static_main(l, sv[1], open(rig.dir, O_PATH | O_DIRECTORY)));
	}
	close(l);
	close(sv[1]);
	rig.parent = sv[0];
	return 0;
}

static int teardown(void **state)
{
	int status;

	(void)state;
	close(rig.parent); /* its way to be told to end */
	assert_int_equal(waitpid(rig.pid, &status, 0), rig.pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	free(big);
	free(script);
	return io_remove_tree(AT_FDCWD, rig.dir);
}

struct reply {
	struct buf raw;
	int status;
	char *body;
	size_t n;
};

static void reply_release(struct reply *r)
{
	buf_release(&r->raw);
}
#define cleanup_reply cleanup_with(reply_release)

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&rig.addr, sizeof rig.addr), 0);
	return fd;
}

/* Not by SO_RCVTIMEO: with that, a stop of this process would end it, too (EINTR). */
static size_t take(int fd, char *p, size_t room)
{
	struct pollfd one = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&one, 1, PATIENCE_MS), 1);
	ssize_t n = read(fd, p, room);
	assert_true(n >= 0);
	return (size_t)n;
}

static struct reply ask(const char *method, const char *site, const char *path, const char *headers)
{
	cleanup_close int fd = dial();
	cleanup_free char *req =
	    xasprintf("%s %s HTTP/1.1\r\nHost: x\r\nX-Spaced-Site: %s\r\n%sConnection: close\r\n\r\n", method, path,
		      site, headers ? headers : "");
	struct reply r = {0};
	size_t n;

	assert_int_equal(io_write_full(fd, req, strlen(req)), 0);
	do {
		buf_reserve(&r.raw, 65536);
		n = take(fd, r.raw.data + r.raw.len, 65536);
		r.raw.len += n;
	} while (n > 0);
	r.raw.data[r.raw.len] = '\0';
	assert_memory_equal(r.raw.data, "HTTP/1.1 ", 9);
	r.status = (int)strtol(r.raw.data + 9, NULL, 10);
	r.body = strstr(r.raw.data, "\r\n\r\n");
	assert_non_null(r.body);
	r.body[2] = '\0'; /* ends the head */
	r.body += 4;
	r.n = r.raw.len - (size_t)(r.body - r.raw.data);
	return r;
}

static bool has(const struct reply *r, const char *text)
{
	return strstr(r->raw.data, text) != NULL;
}

/* The value of a header, malloc'd; NULL when it is not there. */
static char *header(const struct reply *r, const char *name)
{
	cleanup_free char *start = xasprintf("\r\n%s: ", name);
	const char *at = strcasestr(r->raw.data, start);

	if (!at)
		return NULL;
	at += strlen(start);
	return xstrndup(at, strcspn(at, "\r"));
}

static void files_and_folders(void **state)
{
	static const struct {
		const char *method, *site, *path;
		int status;
		const char *body, *head; /* parts of them */
	} cases[] = {
	    {"GET", "one", "/", 200, "<h1>one</h1>", "Content-Type: text/html; charset=utf-8\r\n"},
	    {"GET", "one", "/", 200, "", "Cache-Control: no-cache\r\n"},
	    {"GET", "one", "/?q=1", 200, "<h1>one</h1>", "Last-Modified: "},
	    {"HEAD", "one", "/", 200, "", "Content-Length: 12\r\n"},
	    {"GET", "one", "/README.md", 200, "# readme", "text/markdown"},
	    {"GET", "one", "/.gitattributes", 200, "x", ""},
	    {"GET", "one", "/.well-known/a.txt", 200, "known", ""},
	    {"GET", "one", "/sub", 301, "", "Location: /sub/\r\n"},
	    {"GET", "one", "/sub?a=b", 301, "", "Location: /sub/?a=b\r\n"},
	    {"GET", "one", "/sub/", 200, "<h1>sub</h1>", ""},
	    {"GET", "one", "/noindex/", 404, "no file of that name", ""},
	    {"GET", "one", "/a%20b&c.txt", 200, "odd name", "Cache-Control: max-age=60\r\n"},
	    {"GET", "one", "/link.txt", 200, "odd name", ""},
	    {"GET", "one", "/out.txt", 404, "", ""},
	    {"GET", "one", "/empty.txt", 200, "", "Content-Length: 0\r\n"},
	    {"GET", "one", "/main.0123456789abcdef0.js", 200, "1", "immutable"},
	    {"GET", "one", "/index.html/", 404, "", ""},
	    {"GET", "one", "/index.html/x", 404, "", ""},
	    {"GET", "one", "/missing", 404, "404", "Content-Type: text/html"},
	    {"GET", "one", "/.env", 404, "no file", ""},
	    {"GET", "one", "/.git/config", 404, "no file", ""},
	    {"GET", "one", "/../secret.txt", 400, "", "X-Error-Message"},
	    {"GET", "one", "/%2e%2e/secret.txt", 400, "", ""},
	    {"GET", "one", "/..%2fsecret.txt", 400, "", ""},
	    {"GET", "one", "/a%00", 400, "", ""},
	    {"GET", "one", "//sub", 404, "", ""},
	    {"POST", "one", "/", 405, "", "Allow: GET, HEAD\r\n"},
	    {"DELETE", "one", "/", 405, "", "Allow: GET, HEAD\r\n"},
	    {"OPTIONS", "one", "/", 405, "", "Allow: GET, HEAD\r\n"},
	    {"GET", "missing", "/", 404, "", ""},
	    {"GET", "../one", "/", 400, "", ""},
	    {"GET", "", "/", 400, "", ""},
	    {"GET", "two", "/", 200, "<h1>two</h1>", "X-Own: yes\r\n"},
	    {"GET", "two", "/", 200, "", "Cache-Control: no-store\r\n"},
	    {"GET", "two", "/package.json", 404, "<h1>own 404</h1>", "X-Own: yes\r\n"},
	    {"GET", "two", "/dist/main.html", 404, "own 404", ""},
	    {"HEAD", "two", "/nothing", 404, "", "Content-Length: 16\r\n"},
	    {"GET", "three", "/", 302, "", "Location: /pages/a%20b.html\r\n"},
	    {"GET", "three", "/pages/a%20b.html", 200, "three", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_reply struct reply r = ask(cases[i].method, cases[i].site, cases[i].path, NULL);
		if (r.status != cases[i].status || !strstr(r.body, cases[i].body) || !has(&r, cases[i].head))
			fail_msg("%s %s %s: %s\n%s", cases[i].method, cases[i].site, cases[i].path, r.raw.data, r.body);
		if (strcmp(cases[i].method, "HEAD") == 0)
			assert_int_equal(r.n, 0);
	}
}

static void validators(void **state)
{
	cleanup_reply struct reply r = ask("GET", "one", "/", NULL);
	cleanup_free char *etag = header(&r, "ETag");
	cleanup_free char *date = header(&r, "Last-Modified");

	(void)state;
	if (rig.xattrs)
		assert_string_equal(etag, "\"00112233445566778899aabbccddeeff\"");
	const struct {
		const char *name, *value;
		int status;
	} cases[] = {
	    {"If-None-Match", etag, 304},
	    {"If-None-Match", "*", 304},
	    {"If-None-Match", "\"other\"", 200},
	    {"If-Modified-Since", date, 304},
	    {"If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT", 200},
	    {"If-Match", etag, 200},
	    {"If-Match", "\"other\"", 412},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cleanup_free char *h = xasprintf("%s: %s\r\n", cases[i].name, cases[i].value);
		cleanup_reply struct reply again = ask("GET", "one", "/", h);
		cleanup_free char *etag2 = header(&again, "ETag");
		assert_int_equal(again.status, cases[i].status);
		assert_string_equal(etag2, etag);
		if (again.status != 200)
			assert_int_equal(again.n, 0);
	}
	cleanup_free char *weak = xasprintf("If-None-Match: \"a\", W/%s\r\n", etag);
	cleanup_reply struct reply w = ask("HEAD", "one", "/", weak);
	assert_int_equal(w.status, 304);
}

static void ranges(void **state)
{
	cleanup_reply struct reply whole = ask("GET", "one", "/big.bin", NULL);
	cleanup_free char *etag = header(&whole, "ETag");

	(void)state;
	assert_int_equal(whole.n, BIG);
	assert_memory_equal(whole.body, big, BIG);
	assert_true(has(&whole, "Accept-Ranges: bytes\r\n"));

	cleanup_reply struct reply a =
	    ask("GET", "one", "/big.bin", "Range: bytes=1000-1999\r\nAccept-Encoding: br\r\n");
	assert_int_equal(a.status, 206);
	assert_true(has(&a, "Content-Range: bytes 1000-1999/3145728\r\n"));
	assert_int_equal(a.n, 1000);
	assert_memory_equal(a.body, big + 1000, 1000);

	cleanup_reply struct reply b = ask("GET", "one", "/big.bin", "Range: bytes=-200000\r\n");
	assert_int_equal(b.status, 206);
	assert_int_equal(b.n, 200000);
	assert_memory_equal(b.body, big + BIG - 200000, 200000);

	cleanup_reply struct reply c = ask("GET", "one", "/big.bin", "Range: bytes=3145728-\r\n");
	assert_int_equal(c.status, 416);
	assert_true(has(&c, "Content-Range: bytes */3145728\r\n"));

	cleanup_reply struct reply d = ask("GET", "one", "/big.bin", "Range: bytes=0-1,5-6\r\n");
	assert_int_equal(d.status, 200);

	cleanup_free char *same = xasprintf("Range: bytes=0-9\r\nIf-Range: %s\r\n", etag);
	cleanup_reply struct reply e = ask("GET", "one", "/big.bin", same);
	assert_int_equal(e.status, 206);
	cleanup_reply struct reply f = ask("GET", "one", "/big.bin", "Range: bytes=0-9\r\nIf-Range: \"x\"\r\n");
	assert_int_equal(f.status, 200);
	cleanup_reply struct reply g = ask("HEAD", "one", "/big.bin", "Range: bytes=0-9\r\n");
	assert_int_equal(g.status, 200);
	cleanup_reply struct reply h =
	    ask("GET", "one", "/app.js", "Range: bytes=0-9\r\nAccept-Encoding: br, gzip\r\n");
	assert_int_equal(h.status, 206);
	assert_false(has(&h, "Content-Encoding"));
	assert_memory_equal(h.body, script, 10);
}

static void compression(void **state)
{
	cleanup_reply struct reply plain = ask("GET", "one", "/app.js", NULL);
	cleanup_reply struct reply gz = ask("GET", "one", "/app.js", "Accept-Encoding: gzip\r\n");
	cleanup_reply struct reply br = ask("GET", "one", "/app.js", "Accept-Encoding: gzip, br\r\n");
	cleanup_reply struct reply again = ask("GET", "one", "/app.js", "Accept-Encoding: gzip, br\r\n");
	cleanup_free char *etag = header(&plain, "ETag"), *etag_gz = header(&gz, "ETag"),
			  *etag_br = header(&br, "ETag");
	cleanup_free char *out = malloc(SCRIPT + 1);

	(void)state;
	assert_int_equal(plain.n, SCRIPT);
	assert_memory_equal(plain.body, script, SCRIPT);
	assert_false(has(&plain, "Content-Encoding"));
	assert_true(has(&plain, "Vary: Accept-Encoding\r\n"));
	assert_true(has(&gz, "Content-Encoding: gzip\r\n"));
	assert_true(has(&br, "Content-Encoding: br\r\n"));
	assert_true(gz.n < SCRIPT / 10 && br.n < SCRIPT / 10);
	assert_string_not_equal(etag, etag_gz);
	assert_string_not_equal(etag_br, etag_gz);
	assert_int_equal(again.n, br.n);
	assert_memory_equal(again.body, br.body, br.n);
	z_stream z = {
	    .next_in = (Bytef *)gz.body, .avail_in = (uInt)gz.n, .next_out = (Bytef *)out, .avail_out = SCRIPT + 1};
	assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
	assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
	assert_int_equal(z.total_out, SCRIPT);
	assert_memory_equal(out, script, SCRIPT);
	inflateEnd(&z);
	cleanup_free char *inm = xasprintf("If-None-Match: %s\r\nAccept-Encoding: br\r\n", etag_br);
	cleanup_reply struct reply fresh = ask("GET", "one", "/app.js", inm);
	assert_int_equal(fresh.status, 304);
	cleanup_reply struct reply head = ask("HEAD", "one", "/app.js", "Accept-Encoding: br\r\n");
	cleanup_free char *n = xasprintf("Content-Length: %zu\r\n", br.n);
	assert_true(has(&head, n));
	/* Binary and tiny files stay as they are. */
	cleanup_reply struct reply bin = ask("GET", "one", "/big.bin", "Accept-Encoding: br\r\n");
	cleanup_reply struct reply tiny = ask("GET", "one", "/", "Accept-Encoding: br\r\n");
	assert_false(has(&bin, "Content-Encoding"));
	assert_false(has(&tiny, "Content-Encoding"));
}

/* Clients that leave in the midst of a big file, and one that reads nothing, cost the role nothing that lasts. */
static void leaving_clients(void **state)
{
	static const char req[] = "GET /big.bin HTTP/1.1\r\nHost: x\r\nX-Spaced-Site: one\r\n\r\n";
	int fds[60];

	(void)state;
	for (size_t i = 0; i < 60; i++) {
		char some[1000];
		fds[i] = dial();
		assert_int_equal(io_write_full(fds[i], req, sizeof req - 1), 0);
		if (i % 3)
			assert_true(take(fds[i], some, i * 10 + 1) > 0);
		if (i % 2) {
			close(fds[i]);
			fds[i] = -1;
		}
	}
	cleanup_reply struct reply r = ask("GET", "one", "/big.bin", NULL);
	assert_int_equal(r.n, BIG);
	for (size_t i = 0; i < 50; i++) /* the others are there when the role ends */
		if (fds[i] >= 0)
			close(fds[i]);
}

static void a_site_of_the_same_name(void **state)
{
	(void)state;
	cleanup_free char *site = xasprintf("%s/three", rig.dir);
	cleanup_reply struct reply old = ask("GET", "three", "/", NULL);
	assert_int_equal(old.status, 302);
	assert_int_equal(io_remove_tree(AT_FDCWD, site), 0);
	cleanup_reply struct reply gone = ask("GET", "three", "/", NULL);
	assert_int_equal(gone.status, 404);
	put("three/site.json", "{}");
	put("three/files/index.html", "new three");
	cleanup_reply struct reply new = ask("GET", "three", "/", NULL);
	assert_int_equal(new.status, 200);
	assert_string_equal(new.body, "new three");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(files_and_folders),
	    cmocka_unit_test(validators),
	    cmocka_unit_test(ranges),
	    cmocka_unit_test(compression),
	    cmocka_unit_test(leaving_clients),
	    cmocka_unit_test(a_site_of_the_same_name),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
