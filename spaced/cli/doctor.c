/* See doctor.h. The walls come from sandbox_probe(), which tries them; programs, disk, accounts and name servers are
 * looked at here. Called by `spacectl doctor`. */
#include "spaced/cli/doctor.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pwd.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "sandbox/base.h"
#include "sandbox/protection.h"

#define FINDINGS 48
#define DISK_LOW (5ULL << 30)
#define RESOLVERS 4

static struct finding findings[FINDINGS];
static size_t count;

static void say(const char *check, enum doctor_level level, const char *fix, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void say(const char *check, enum doctor_level level, const char *fix, const char *fmt, ...)
{
	struct finding *f = &findings[count++];
	va_list ap;

	f->check = check;
	f->level = level;
	snprintf(f->fix, sizeof(f->fix), "%s", fix);
	va_start(ap, fmt);
	vsnprintf(f->found, sizeof(f->found), fmt, ap);
	va_end(ap);
}

/* ---- walls ---- */

static void walls(void)
{
	const struct protection *p[PROTECTIONS];
	struct sandbox_host h;

	sandbox_probe(&h);
	say("kernel", DOCTOR_OK, "", "Linux %s, Landlock ABI %d", h.kernel, h.landlock_abi);
	say("privileges", DOCTOR_OK, "", "%s", h.root ? "root" : "an ordinary user's, with user namespaces");
	size_t n = protections_of(&h, p);
	for (size_t i = 0; i < n; i++)
		if (p[i]->given)
			say(p[i]->name, DOCTOR_OK, "", "%s", p[i]->given);
		else
			say(p[i]->name, p[i]->needed ? DOCTOR_FAILS : DOCTOR_LACKS, p[i]->mend, "%s", p[i]->lost);
}

/* ---- programs ---- */

static bool find_program(const char *name, char *path, size_t size)
{
	static const char *const places[] = {"/usr/local/bin",	"/usr/bin",  "/bin",
					     "/usr/local/sbin", "/usr/sbin", "/sbin"};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, size, "%s/%s", places[i], name);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

static void program(const char *name, enum doctor_level missing, const char *no, const char *fix)
{
	char path[128];

	if (find_program(name, path, sizeof(path)))
		say(name, DOCTOR_OK, "", "%s", path);
	else
		say(name, missing, fix, "%s", no);
}

/* The minors of python3.N in the two places that sandboxes see, "3.9, 3.11". */
static size_t pythons(char *out, size_t size)
{
	static const char *const places[] = {"/usr/bin", "/usr/local/bin"};
	bool minor[100] = {false};
	size_t n = 0, len = 0;

	for (size_t i = 0; i < 2; i++) {
		cleanup_dir DIR *d = opendir(places[i]);
		struct dirent *e;
		while (d && (e = readdir(d))) {
			const char *v = strncmp(e->d_name, "python3.", 8) ? "" : e->d_name + 8;
			size_t digits = strspn(v, "0123456789");
			if (digits >= 1 && digits <= 2 && !v[digits])
				minor[strtoul(v, NULL, 10)] = true;
		}
	}
	out[0] = '\0';
	for (size_t i = 0; i < 100; i++)
		if (minor[i] && len + 8 < size) {
			len += (size_t)snprintf(out + len, size - len, "%s3.%zu", n ? ", " : "", i);
			n++;
		}
	return n;
}

static void programs(void)
{
	char list[120];

	program("git", DOCTOR_FAILS, "not here: Spaces cannot be cloned", "apt install git");
	if (pythons(list, sizeof(list)))
		say("python", DOCTOR_OK, "", "%s", list);
	else
		say("python", DOCTOR_LACKS, "apt install python3 python3-venv",
		    "none: no Gradio, Streamlit or Python apps");
	program("uv", DOCTOR_LACKS, "not here: pip installs Python packages, several times slower",
		"put the `uv` program into /usr/local/bin (pip install uv, or its release archive)");
	program("node", DOCTOR_LACKS, "not here: no Node apps and no app_build_command", "apt install nodejs npm");
	program("npm", DOCTOR_LACKS, "not here: no Node apps and no app_build_command", "apt install npm");
	if (find_program("debootstrap", list, sizeof(list)) && !find_program("mmdebstrap", list, sizeof(list)))
		say("mmdebstrap", DOCTOR_OK, "", "not here; debootstrap makes base images");
	else
		program("mmdebstrap", DOCTOR_LACKS, "not here: no base images for Spaces to stand on",
			"apt install mmdebstrap");
	program("mkfs.ext4", DOCTOR_LACKS, "not here: volumes have no fixed size", "apt install e2fsprogs");
}

/* ---- disk ---- */

static void disk(const char *state)
{
	cleanup_free char *path = xstrdup(state);
	struct statvfs v;
	char *slash;

	/* The folder may not be there yet: the file system it will be on. */
	while (statvfs(path, &v) < 0) {
		slash = strrchr(path, '/');
		if (!slash || !strcmp(path, "/")) {
			free(path);
			path = xstrdup(slash ? "/" : ".");
			if (statvfs(path, &v) < 0)
				return;
			break;
		}
		slash[slash == path] = '\0';
	}
	double room = (double)v.f_bavail * (double)v.f_frsize;
	say("disk", room < (double)DISK_LOW ? DOCTOR_LACKS : DOCTOR_OK,
	    room < (double)DISK_LOW ? "make room, or put the state folder elsewhere with --state" : "",
	    "%.1f GiB free for %s", room / (1U << 30), state);
	if (v.f_files && v.f_favail < 100000)
		say("inodes", DOCTOR_LACKS, "make room, or put the state folder elsewhere with --state",
		    "only %llu free", (unsigned long long)v.f_favail);
}

/* ---- what Spaces stand on ---- */

static void base(const char *state)
{
	char name[BASE_NAME_MAX + 1], id[BASE_ID];

	base_default(state, name);
	if (strcmp(name, BASE_HOST) == 0)
		say("base", DOCTOR_LACKS,
		    "for hostile tenants, as root: spacectl base create NAME; spacectl base default NAME",
		    "host: Spaces share the cached pages of /usr with what the host runs (CVE-2026-31431 and its kin)");
	else if (base_newest(state, name, id))
		say("base", DOCTOR_OK, "", "%s: Spaces share no cached page with what the host runs", id);
	else
		say("base", DOCTOR_FAILS, "spacectl base default host, or make it again: spacectl base create NAME",
		    "the default base `%s` is not there: nothing can be built", name);
}

/* ---- names ---- */

static bool parse_address(const char *s, struct sockaddr_storage *ss, socklen_t *len)
{
	struct sockaddr_in *in4 = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, s, &in4->sin_addr) == 1) {
		in4->sin_family = AF_INET;
		in4->sin_port = htons(53);
		*len = sizeof(*in4);
		return ntohl(in4->sin_addr.s_addr) >> 24 != 127;
	}
	if (inet_pton(AF_INET6, s, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(53);
		*len = sizeof(*in6);
		return !IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) && !IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr);
	}
	return false;
}

/* Those of a resolv.conf text that are not loopback. */
static size_t nameservers(const char *text, char out[][64], size_t max)
{
	struct sockaddr_storage ss;
	socklen_t len;
	size_t n = 0;

	for (const char *line = text; line && *line && n < max; line = strchr(line, '\n')) {
		line += *line == '\n';
		size_t blank = strspn(line, " \t");
		if (strncmp(line + blank, "nameserver", 10) != 0)
			continue;
		const char *from = line + blank + 10 + strspn(line + blank + 10, " \t");
		size_t k = strcspn(from, " \t\r\n#;");
		if (k == 0 || k >= 64)
			continue;
		memcpy(out[n], from, k);
		out[n][k] = '\0';
		/* A stub on loopback is out of a sandbox's reach. */
		if (parse_address(out[n], &ss, &len))
			n++;
	}
	return n;
}

/* Asks for the root's name servers; any answer to our question will do. */
static bool answers(const char *address)
{
	unsigned char query[] = {0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1}, reply[512];
	cleanup_close int fd = -1;
	struct sockaddr_storage ss;
	struct pollfd p;
	socklen_t len;

	if (!parse_address(address, &ss, &len))
		return false;
	fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	query[0] = (unsigned char)(getpid() >> 8);
	query[1] = (unsigned char)getpid();
	if (fd < 0 || connect(fd, (struct sockaddr *)&ss, len) < 0 || send(fd, query, sizeof(query), 0) < 0)
		return false;
	p = (struct pollfd){.fd = fd, .events = POLLIN};
	return poll(&p, 1, 1500) == 1 && recv(fd, reply, sizeof(reply), 0) >= 12 && !memcmp(reply, query, 2);
}

static void resolvers(void)
{
	/* The second is systemd-resolved's list of the real ones, when the first names its stub. */
	static const char *const files[] = {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"};
	static const char fix[] = "name a reachable DNS server (not 127.x) in /etc/resolv.conf";
	char list[RESOLVERS][64];
	size_t n = 0;

	for (size_t i = 0; i < 2 && !n; i++) {
		cleanup_buf struct buf text = BUF_INIT;
		cleanup_close int fd = open(files[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		buf_reserve(&text, 65536);
		ssize_t got = read(fd, text.data, 65535);
		text.data[got > 0 ? got : 0] = '\0';
		n = nameservers(text.data, list, RESOLVERS);
	}
	if (!n) {
		say("DNS", DOCTOR_LACKS, fix, "no name server that a sandbox can reach: builds cannot install");
		return;
	}
	for (size_t i = 0; i < n; i++)
		if (answers(list[i])) {
			say("DNS", DOCTOR_OK, "", "%s answers on port 53", list[i]);
			return;
		}
	say("DNS", DOCTOR_LACKS, fix, "%s does not answer on port 53", list[0]);
}

/* ---- accounts ---- */

static void accounts(void)
{
	static const char *const names[] = {"spaced", "spaced-proxy", "spaced-static"};
	char missing[80] = "";
	size_t len = 0;

	if (geteuid() != 0)
		return;
	for (size_t i = 0; i < 3; i++)
		if (!getpwnam(names[i]))
			len += (size_t)snprintf(missing + len, sizeof(missing) - len, "%s%s", len ? " " : "", names[i]);
	if (!len) {
		say("accounts", DOCTOR_OK, "", "spaced, spaced-proxy, spaced-static");
		return;
	}
	cleanup_free char *fix =
	    xasprintf("for u in %s; do useradd --system --no-create-home --shell /usr/sbin/nologin $u; done", missing);
	say("accounts", DOCTOR_LACKS, fix, "not there: %s; spare user numbers stand in for them", missing);
}

const struct finding *doctor_examine(const char *state, size_t *n)
{
	count = 0;
	walls();
	programs();
	disk(state);
	base(state);
	resolvers();
	accounts();
	*n = count;
	return findings;
}
