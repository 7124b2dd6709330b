/* `sandbox run`: one command inside the walls, for a person at a terminal or a script. Hands on stdin, stdout, stderr
 * and the exit status; needs neither daemon nor configuration. Everything is made for this one run and removed after. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/cmd/feel.h"
#include "sandbox/cmd/options.h"
#include "sandbox/cmd/slot.h"
#include "sandbox/egress.h"
#include "sandbox/egress_inside.h"
#include "sandbox/exec.h"
#include "sandbox/ids.h"
#include "sandbox/netns.h"
#include "sandbox/protection.h"
#include "sandbox/skeleton.h"

#define GRACE_MS 5000
#define FREEZE_MS 2000
#define CACHE "/var/cache/spaced-sandbox"
#define NOBODY 65534
#define FIRST_ID 0x50000000U /* ranges of `sandbox run`; the daemon's are elsewhere (spaced/config.h) */

/* What is made for one run, and has to go with it. */
struct run {
	struct sandbox box;
	struct sandbox_sources src;
	struct egress egress;
	struct feel feel;
	char *state, *egress_lock;
	int number; /* of slot.h */
	bool connected;
	struct egress_policy policy;
	struct egress_inside inside;
};

struct outcome {
	int status; /* as of wait(2) */
	bool timeout;
};

/* -- what the sandbox stands on ----------------------------------------------------------------------------------- */

static int open_or_die(const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		die("open `%s`: %s", path, strerror(errno));
	return fd;
}

static char *state_folder(void)
{
	const char *home = getenv("XDG_CACHE_HOME");
	char *path;

	if (ids_host_root())
		path = xstrdup(CACHE);
	else if (geteuid() == NOBODY)
		path = xstrdup(CACHE "-rootless"); /* made by become_nobody() */
	else if (home && *home == '/')
		path = xasprintf("%s/spaced-sandbox", home);
	else
		path = xasprintf("%s/.cache/spaced-sandbox", getenv("HOME") ? getenv("HOME") : "/nonexistent");
	char *slash = strrchr(path, '/');
	*slash = '\0';
	io_mkdir(AT_FDCWD, path, 0700);
	*slash = '/';
	int rc = io_mkdir(AT_FDCWD, path, 0700);
	if (rc < 0)
		die("make `%s`: %s%s", path, strerror(-rc),
		    ids_host_root() ? "" : "; XDG_CACHE_HOME may name a folder");
	return path;
}

/* The system around the command is copied from the base once, and again when the base has changed. Where the file system
 * cannot be idmapped, each range has a copy of its own (`id_base` as of spec.h). */
static int skeleton_of(int root, const char *state, int number, uint32_t id_base)
{
	cleanup_close int dir = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	char hash[SKELETON_NAME], name[SKELETON_NAME + 70], making[64];
	struct err err = ERR_INIT;
	struct utsname kernel;

	skeleton_name(root, hash);
	/* Another kernel may not be able to show this one's copy with other ids. */
	uname(&kernel);
	snprintf(name, sizeof name, "%s-%s", hash, kernel.release);
	int fd = dir < 0 ? -1 : openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0 || (fd >= 0 && (!id_base || sandbox_has_idmaps())))
		return dir < 0 ? open_or_die(state) : fd;
	if (fd >= 0)
		close(fd);
	bool shift = id_base && !sandbox_can_idmap(dir);
	if (shift) {
		snprintf(name, sizeof name, "%s-%u", hash, id_base);
		if ((fd = openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)) >= 0)
			return fd;
	}
	snprintf(making, sizeof making, "making-%d", number);
	io_remove_tree(dir, making);
	if (mkdirat(dir, making, 0755) < 0)
		die("make `%s/%s`: %s", state, making, strerror(errno));
	cleanup_close int to = openat(dir, making, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (to < 0 || fchmod(to, 0755) < 0 || skeleton_build(root, to, &err) < 0 ||
	    (shift && skeleton_shift(to, id_base, &err) < 0)) {
		io_remove_tree(dir, making);
		die("%s", err.msg);
	}
	/* Somebody else may have been quicker: theirs is as good. */
	if (renameat(dir, making, dir, name) < 0)
		io_remove_tree(dir, making);
	fd = openat(dir, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		die("open `%s/%s`: %s", state, name, strerror(errno));
	return fd;
}

/* As root by a veth pair, made ahead; the rest (a list; all of it rootless) is done by the launcher's hook. */
static void connect_out(struct run *r, const struct options *o)
{
	struct err err = ERR_INIT;

	if (egress_policy_of(&o->spec, &r->policy, &err) < 0)
		die("%s", err.msg);
	r->inside = (struct egress_inside){.policy = &r->policy, .spec = &o->spec, .slirp = o->rootless, .gone = -1};
	if (!o->rootless) {
		r->inside.uid = EGRESS_INSIDE_UID(o->spec.id_base);
		r->src.netns = netns_make(&err);
		if (r->src.netns < 0 || egress_ensure(&r->egress, &err) < 0 ||
		    egress_detach(&r->egress, (uint32_t)r->number, &err) < 0 ||
		    egress_attach(&r->egress, (uint32_t)r->number, r->src.netns, r->policy.bandwidth, &err) < 0)
			die("%s", err.msg);
		r->connected = true;
	}
	if (egress_inside_needed(&r->policy, o->rootless)) {
		r->src.network = egress_inside_network;
		r->src.network_ctx = &r->inside;
	}
}

static void prepare(struct run *r, struct options *o)
{
	struct sandbox_spec *s = &o->spec;
	struct err err = ERR_INIT;

	r->src = (struct sandbox_sources){.top = -1, .netns = -1, .idmap = !o->rootless};
	r->state = state_folder();
	r->egress_lock = xasprintf("%s/egress.lock", r->state);
	egress_init(&r->egress, r->state, r->egress_lock);
	r->number = slot_take(r->state, r->egress.tag, s->name, &err);
	if (r->number < 0)
		die("%s", err.msg);
	cleanup_close int root = o->base ? open_or_die(o->base) : SKELETON_HOST;
	cleanup_free char *usr = xasprintf("%s/usr", o->base ? o->base : "");
	r->src.base_usr = open_or_die(usr);
	for (size_t i = 0; i < s->nbinds; i++)
		r->src.binds[i] = open_or_die(s->binds[i].source);
	for (size_t i = 0; i < s->nlayers; i++)
		r->src.layers[i] = open_or_die(o->layers[i]);
	if (o->top && ((r->src.top = open(o->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
		       flock(r->src.top, LOCK_EX | LOCK_NB) < 0))
		die("--top: `%s`: %s", o->top, errno == EWOULDBLOCK ? "another sandbox is using it" : strerror(errno));
	if (!o->rootless)
		s->id_base = FIRST_ID + (uint32_t)r->number * SANDBOX_IDS;
	r->src.skeleton = skeleton_of(root, r->state, r->number, s->id_base);
	if (s->egress != EGRESS_NONE)
		connect_out(r, o);
}

/* -- the run ------------------------------------------------------------------------------------------------------ */

static void send_signal(const struct run *r, int sig)
{
	syscall(SYS_pidfd_send_signal, r->box.pidfd, sig, NULL, 0);
}

/* What a key of the terminal sends is for all in the foreground, and what runs inside is not in the terminal's session. */
static void send_key(const struct run *r, int sig)
{
	siginfo_t info = {.si_signo = sig, .si_code = SI_QUEUE, .si_value.sival_int = SANDBOX_TO_GROUP};

	syscall(SYS_pidfd_send_signal, r->box.pidfd, sig, &info, 0);
}

/* Ctrl-Z: what is inside stops with us, and goes on with us. */
static void stop_for_a_while(struct run *r)
{
	const struct cgroup_ops *ops = cgroup_host();
	struct err err = ERR_INIT;
	sigset_t set;

	if (ops->freeze(&r->box.cgroup, FREEZE_MS, &err) < 0)
		fprintf(stderr, "sandbox: what is inside goes on: %s\n", err.msg);
	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &set, NULL); /* here we stop; or not at all, where nobody could let us go on */
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (ops->kind != CGROUP_NONE && ops->thaw(&r->box.cgroup, &err) < 0)
		die("%s", err.msg);
}

static void kill_all(struct run *r)
{
	struct err err;

	send_signal(r, SIGKILL);
	cgroup_host()->kill(&r->box.cgroup, GRACE_MS, &err);
}

static int read_status(struct run *r)
{
	int status = 0;

	/* Nothing in it: pid 1 itself was killed. */
	if (io_read_full(r->box.status_pipe, &status, sizeof status) < 0)
		return SIGKILL;
	return status;
}

static int left_ms(uint64_t until)
{
	uint64_t now = io_now_ms();

	return until == 0 ? -1 : until <= now ? 0 : until - now > 1U << 30 ? 1 << 30 : (int)(until - now);
}

static struct outcome wait_end(struct run *r, const struct sandbox_spec *s, int signals)
{
	struct outcome out = {0};
	uint64_t until = s->limits.timeout_s ? io_now_ms() + s->limits.timeout_s * 1000ULL : 0;
	int asked = 0;

	for (;;) {
		struct pollfd p[2 + FEEL_FDS] = {{.fd = r->box.status_pipe, .events = POLLIN},
						 {.fd = signals, .events = POLLIN}};
		struct signalfd_siginfo si;

		feel_poll(&r->feel, p + 2);
		if (poll(p, 2 + FEEL_FDS, left_ms(until && until < r->feel.due ? until : r->feel.due)) < 0 &&
		    errno != EINTR)
			die("poll: %s", strerror(errno));
		if (p[0].revents) {
			out.status = read_status(r);
			return out;
		}
		feel_look(&r->feel, p + 2);
		if (p[1].revents && read(signals, &si, sizeof si) == (ssize_t)sizeof si) {
			/* The third Ctrl-C is meant. */
			if (si.ssi_signo == SIGINT && ++asked == 3)
				kill_all(r);
			else if (si.ssi_signo == SIGTSTP)
				stop_for_a_while(r);
			else if (si.ssi_code == SI_KERNEL)
				send_key(r, (int)si.ssi_signo);
			else
				send_signal(r, (int)si.ssi_signo);
		}
		if (until && left_ms(until) == 0) {
			if (out.timeout)
				kill_all(r);
			else
				send_signal(r, SIGTERM);
			until = out.timeout ? 0 : io_now_ms() + GRACE_MS;
			out.timeout = true;
		}
	}
}

static int report(struct run *r, const struct sandbox_spec *s, const struct outcome *out)
{
	int status = WIFEXITED(out->status) ? WEXITSTATUS(out->status) : 128 + WTERMSIG(out->status);
	char used[80];
	uint64_t oom_kills = feel_end(&r->feel, used, sizeof used);

	if (out->timeout)
		fprintf(stderr, "sandbox: stopped: it ran for %u s\n", s->limits.timeout_s);
	else if (oom_kills && status == 128 + SIGKILL)
		fprintf(stderr, "sandbox: killed: %s\n", used);
	else if (oom_kills)
		fprintf(stderr, "sandbox: a process of it was killed: %s\n", used);
	else if (!WIFEXITED(out->status))
		fprintf(stderr, "sandbox: ended by signal %d (%s)\n", WTERMSIG(out->status),
			strsignal(WTERMSIG(out->status)));
	return status;
}

static void clean_up(struct run *r)
{
	struct err err = ERR_INIT;

	kill_all(r);
	while (waitpid(r->box.init, NULL, 0) < 0 && errno == EINTR)
		;
	if (cgroup_host()->remove(&r->box.cgroup, &err) < 0)
		fprintf(stderr, "sandbox: %s\n", err.msg);
	if (r->connected && egress_detach(&r->egress, (uint32_t)r->number, &err) < 0)
		fprintf(stderr, "sandbox: %s\n", err.msg);
	sandbox_release(&r->box);
	struct pollfd helpers = {.fd = r->inside.gone, .events = POLLIN};
	if (r->src.network && poll(&helpers, 1, GRACE_MS) != 1)
		fprintf(stderr, "sandbox: what connected it is still there\n");
}

/* What the host cannot keep is said, never dropped silently. As root with cgroups, the start itself fails. */
static void say_unkept(const struct sandbox_limits *l)
{
	const struct {
		const char *option, *lost;
		bool wanted, kept;
	} table[] = {
	    {"--memory", "memory is not limited", l->memory, cgroup_limits("memory")},
	    {"--cpus", "processors are not limited", l->cpu_milli, cgroup_limits("cpu")},
	    {"--pids", "only RLIMIT_NPROC limits processes", l->pids, cgroup_limits("pids")},
	    {"--io", "bytes from and to disks are not limited", l->io_bytes, cgroup_has_io()},
	};

	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].wanted && !table[i].kept)
			fprintf(stderr, "sandbox: %s: this host gives no such cgroup, so %s (see `sandbox probe`)\n",
				table[i].option, table[i].lost);
}

/* The status of a command that cannot be run is that of one beside an app (sandbox/exec.h). */
_Noreturn static void cannot(int rc, const struct err *err)
{
	const char *hint = "";

	if (rc == SANDBOX_NO_PROGRAM) {
		fprintf(stderr, "sandbox: %s%s\n", err->msg,
			err->code == ENOENT ? " (inside are the host's /usr and what is bound)" : "");
		exit(err->code == ENOENT ? EXEC_NOT_FOUND : EXEC_NOT_EXECUTABLE);
	}
	if (err->code == EPERM && ids_host_root())
		hint = "; root needs CAP_SYS_ADMIN and CAP_NET_ADMIN here, as in a privileged container";
	else if (err->code == EPERM || err->code == ENOSYS)
		hint = "; `sandbox probe` says what this host lacks";
	die("%s%s", err->msg, hint);
}

/* Root that wants to be rootless: its own id may not be mapped, so it goes on as nobody. */
static void become_nobody(void)
{
	int rc = io_mkdir(AT_FDCWD, CACHE "-rootless", 0700);

	if (rc < 0 || lchown(CACHE "-rootless", NOBODY, NOBODY) < 0)
		die("make `" CACHE "-rootless`: %s", strerror(rc < 0 ? -rc : errno));
	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
		die("become nobody: %s", strerror(errno));
	/* The change of ids has made us undumpable, and our /proc files root's: the id maps of the child too. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

/* What the caller ignores, as nohup(1) does, stays ignored: a blocked signal would come here all the same. */
static bool is_ignored(int sig)
{
	struct sigaction now;

	return sigaction(sig, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

static int run_command(int argc, char **argv)
{
	static const int handed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP};
	struct options o = {0};
	struct run r = {0};
	struct err err = ERR_INIT;
	const int stdio[3] = {0, 1, 2};
	sigset_t set;

	options_parse(&o, argc, argv);
	if (o.rootless && ids_host_root())
		become_nobody();
	prepare(&r, &o);
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof handed_on / sizeof *handed_on; i++)
		if (!is_ignored(handed_on[i]))
			sigaddset(&set, handed_on[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	cleanup_close int signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		die("signalfd: %s", strerror(errno));
	int rc = sandbox_start(&o.spec, &r.src, stdio, &r.box, &err);
	if (rc < 0) {
		struct err ignored;

		if (r.connected)
			egress_detach(&r.egress, (uint32_t)r.number, &ignored);
		cannot(rc, &err);
	}
	say_unkept(&o.spec.limits);
	feel_begin(&r.feel, &r.box);
	struct outcome out = wait_end(&r, &o.spec, signals);
	int status = report(&r, &o.spec, &out);
	clean_up(&r);
	return status;
}

static int probe(void)
{
	static const char *const ids[] = {[IDS_ALL] = "ranges", [IDS_RANGE] = "range", [IDS_ONE] = "one"};
	const struct protection *p[PROTECTIONS];
	struct sandbox_host h;

	sandbox_probe(&h);
	printf("kernel %s\nroot %d\nuser_namespaces %d\nidmapped_mounts %d\noverlay_in_userns %d\nloop_devices %d\n"
	       "landlock_abi %d\ncgroup %s\nio_limit %d\negress %d\nbandwidth %d\nmount_api %s\nopenat2 %d\nids %s\n",
	       h.kernel, h.root, h.user_namespaces, h.idmapped_mounts, h.overlay_in_userns, h.loop_devices,
	       h.landlock_abi, cgroup_host()->label, h.io, h.egress, h.bandwidth, h.mount_api, h.openat2, ids[h.ids]);
	size_t n = protections_of(&h, p);
	for (size_t i = 0; i < n; i++)
		if (!p[i]->given)
			printf("missing: %s: %s (%s)\n", p[i]->name, p[i]->lost, p[i]->mend);
	return h.user_namespaces && h.overlay_in_userns ? 0 : 1;
}

int main(int argc, char **argv)
{
	io_keep_stdio();
	log_init("sandbox", LOG_LEVEL_WARN);
	if (argc >= 2 && strcmp(argv[1], "run") == 0)
		return run_command(argc - 1, argv + 1);
	if (argc == 2 && strcmp(argv[1], "probe") == 0)
		return probe();
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return puts("sandbox " SPACED_VERSION) < 0;
	bool help = argc >= 2 && strcmp(argv[1], "--help") == 0;
	if (argc >= 2 && !help)
		die("`%s%s%s` is not understood; try --help", argv[1], argc > 2 ? " " : "", argc > 2 ? argv[2] : "");
	fputs(options_usage, help ? stdout : stderr);
	return help ? 0 : EXIT_CANNOT;
}
