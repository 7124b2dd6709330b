/* Soak: many start-stop cycles over the spawner's channel, then many sandboxes at once. Afterwards nothing that can be
 * attributed to this run is left: processes of its uid ranges, cgroups of its tree, links of its tag, loop devices,
 * mounts and descriptors of its spawner (so no namespace either: one lives by a process, a mount or a descriptor, and the
 * spawner's are compared one by one), files of its state folder. Needs root.
 *
 * usage: soak [CYCLES [PARALLEL]]   1000 and 200 unless given; `make soak` says 10000 and 1000. */
#include <inttypes.h>
#include <sys/resource.h>

#include "sandbox/cgroup.h"
#include "sandbox/netns.h"
#include "tests/unit/spawner_helper.h"

#define SLOTS 8		/* cycles in flight: starts, stops and clean-ups of neighbours overlap */
#define IN_FLIGHT 16	/* of the parallel part's requests */
#define GROWTH_KIB 4096 /* of the spawner's memory, after all is gone: fragmentation, not a leak per sandbox */

static unsigned cycles = 1000, parallel = 200;
static int log_fd = -1;
static bool egress;

enum step { IDLE, START, FREEZE, STOP, WAIT_EXIT, FORGET };
static struct slot {
	enum step step;
	unsigned n; /* number of its cycle */
	uint64_t freeze_by;
} slots[SLOTS];

/* -- what a spawner holds ---------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What its descriptors are, sorted; numbers of sockets and pipes left out: one for one is no leak. */
static char *descriptors(void)
{
	char path[300], link[300], *all[512];
	cleanup_buf struct buf b = BUF_INIT;
	size_t n = 0;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)spawner_pid);
	cleanup_dir DIR *d = opendir(path);
	struct dirent *e;
	while (d && (e = readdir(d)) != NULL && n < 512) {
		snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)spawner_pid, e->d_name);
		ssize_t k = readlink(path, link, sizeof link - 1);
		if (k <= 0)
			continue;
		link[k] = '\0';
		link[strcspn(link, "[")] = '\0';
		all[n++] = xstrdup(link);
	}
	qsort(all, n, sizeof *all, by_text);
	for (size_t i = 0; i < n; i++) {
		buf_addf(&b, "%s\n", all[i]);
		free(all[i]);
	}
	return buf_steal(&b, NULL);
}

/* Mount points of its namespace; which loop device stands behind one may change. */
static char *mounts(void)
{
	cleanup_buf struct buf b = BUF_INIT;
	char path[64], line[4096], point[1024];

	snprintf(path, sizeof path, "/proc/%d/mountinfo", (int)spawner_pid);
	cleanup_file FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%*s %*s %*s %*s %1023s", point) == 1)
			buf_addf(&b, "%s\n", point);
	return buf_steal(&b, NULL);
}

static unsigned memory_kib(void)
{
	char path[64], line[256];
	unsigned kib = 0;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)spawner_pid);
	cleanup_file FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Private_Dirty: %u", &kib) == 1)
			break;
	return kib;
}

/* Files below the state folder but the log of the run. */
static char *files(void)
{
	cleanup_buf struct buf b = BUF_INIT;
	static const char *const folders[] = {"", "/volumes", "/volumes/.mnt", "/sandboxes"};

	for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
		struct dirent **names;
		char path[128];
		snprintf(path, sizeof path, "%s%s", state, folders[i]);
		int n = scandir(path, &names, NULL, alphasort);
		for (int k = 0; k < n; k++) {
			buf_addf(&b, "%s/%s\n", folders[i], names[k]->d_name);
			free(names[k]);
		}
		if (n >= 0)
			free(names);
	}
	return buf_steal(&b, NULL);
}

/* Processes with an id of any of our ranges (of a shell's: of the user inside; root waits), and whoever holds a file of the state
 * folder. */
static int processes_of_all(void)
{
	uint32_t last = ID_BASE + (parallel > SLOTS ? parallel : SLOTS) * SANDBOX_IDS;
	uint32_t shells = ID_BASE + SHELL_IDS_FROM * SANDBOX_IDS, in_use = parallel + SLOTS + SHELLS;
	cleanup_dir DIR *d = opendir("/proc");
	struct dirent *e;
	struct stat st;
	int n = 0;

	while (d && (e = readdir(d)) != NULL)
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9' && fstatat(dirfd(d), e->d_name, &st, 0) == 0)
			n += (st.st_uid >= ID_BASE && st.st_uid < last) ||
			     (st.st_uid >= shells && st.st_uid < shells + in_use * SANDBOX_IDS &&
			      st.st_uid % SANDBOX_IDS == (shells + 1000) % SANDBOX_IDS);
	return n + processes();
}

struct holds {
	char *descriptors, *mounts, *files;
	unsigned kib;
};

static void holds_take(struct holds *h)
{
	*h = (struct holds){descriptors(), mounts(), files(), memory_kib()};
}

static void holds_release(struct holds *h)
{
	free(h->descriptors);
	free(h->mounts);
	free(h->files);
}

/* At rest: the pool of network namespaces is filled, and a moment later nothing has changed: no worker is on its way. */
static void holds_at_rest(struct holds *h)
{
	uint64_t end = io_now_ms() + 2 * DEADLINE_MS;

	holds_take(h);
	for (;;) {
		struct holds last = *h;
		unsigned ready = 0;

		poll(NULL, 0, 100);
		holds_take(h);
		for (const char *p = h->descriptors; (p = strstr(p, "net:")); p++)
			ready++;
		bool same = strcmp(last.descriptors, h->descriptors) == 0;
		holds_release(&last);
		if (ready == NETNS_POOL && same)
			return;
		assert_true(io_now_ms() < end);
	}
}

static bool same_text(const char *what, const char *a, const char *b, bool say)
{
	if (strcmp(a, b) == 0)
		return true;
	if (say)
		print_error("%s before:\n%s\nnow:\n%s\n", what, a, b);
	return false;
}

/* The pool of network namespaces is filled again, idle workers end: a moment later it is as before, or never. */
static void holds_the_same(const struct holds *before)
{
	uint64_t end = io_now_ms() + 2 * DEADLINE_MS;

	for (;;) {
		struct holds now;
		bool last = io_now_ms() > end;
		holds_take(&now);
		bool same = same_text("descriptors", before->descriptors, now.descriptors, last) &&
			    same_text("mounts", before->mounts, now.mounts, last) &&
			    same_text("files", before->files, now.files, last);
		unsigned kib = now.kib;
		holds_release(&now);
		if (same) {
			print_message("#   spawner: %u KiB private before, %u after\n", before->kib, kib);
			assert_true(kib < before->kib + GROWTH_KIB);
			return;
		}
		assert_false(last);
		poll(NULL, 0, 50);
	}
}

/* -- requests ------------------------------------------------------------------------------------------------------------ */

static void send_start(uint32_t id, const struct sandbox_spec *s)
{
	cleanup_buf struct buf b = BUF_INIT;

	sandbox_spec_encode(s, &b);
	put_u8(&b, 0);
	put_u8(&b, 0);
	assert_int_equal(frame_send(control, SPAWN_START, id, b.data, b.len, &log_fd, 1), 0);
}

static void send_named(uint32_t id, uint32_t verb, const char *name, uint32_t grace)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	if (verb == SPAWN_STOP)
		put_u32(&b, grace);
	assert_int_equal(frame_send(control, verb, id, b.data, b.len, NULL, 0), 0);
}

/* The freeze is asked for again that the spawner has given up after two seconds, as control does. */
static bool freeze_again(uint32_t id)
{
	struct slot *s = id >= 1 && id <= SLOTS ? &slots[id - 1] : NULL;
	char name[32];

	if (!s || s->step != FREEZE || io_now_ms() > s->freeze_by)
		return false;
	snprintf(name, sizeof name, "soak-%u", id - 1);
	send_named(id, SPAWN_FREEZE, name, 0);
	return true;
}

static void receive(struct frame *f)
{
	for (;;) {
		struct pollfd p = {control, POLLIN, 0};

		assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
		assert_int_equal(frame_recv(control, f), 1);
		if (f->type != SPAWN_ERROR)
			return;
		struct reader r = reader_of(f->payload, f->len);
		char msg[500] = "";
		int code = (int)get_u32(&r);
		get_str(&r, msg, sizeof msg);
		if (code != ETIMEDOUT || !freeze_again(f->id))
			fail_msg("request %u refused: %s", f->id, msg);
		frame_release(f);
	}
}

static struct sandbox_spec soak_spec(unsigned number, char **argv)
{
	char name[32];

	snprintf(name, sizeof name, "soak-%u", number);
	struct sandbox_spec s = spec_of(name, argv);
	s.id_base = ID_BASE + number * SANDBOX_IDS;
	return s;
}

/* -- cycles ---------------------------------------------------------------------------------------------------------------- */

static char *sleeper[] = {"sleep", "100000", NULL};
static char *ending[] = {"true", NULL};

/* One cycle in three ends by itself, one is killed, one is asked with SIGTERM; one in ten is stopped while frozen; slot 0
 * has a disk of its own, and one cycle in 50 a way to the Internet. */
static bool ends_itself(unsigned n)
{
	return n % 3 == 2;
}

static bool is_frozen_first(unsigned n)
{
	return n % 10 == 0 && !ends_itself(n) && cgroup_host()->kind != CGROUP_NONE;
}

static uint32_t id_of(unsigned slot)
{
	return slot + 1;
}

static void begin(unsigned slot, unsigned n)
{
	struct sandbox_spec s = soak_spec(slot, ends_itself(n) ? ending : sleeper);

	slots[slot] = (struct slot){.step = START, .n = n};
	if (slot == 0)
		s.top = "top-soak";
	if (n % 50 == 7 && egress)
		s.egress = EGRESS_INTERNET;
	send_start(id_of(slot), &s);
}

static void stop_slot(unsigned slot, const char *name)
{
	slots[slot].step = STOP;
	send_named(id_of(slot), SPAWN_STOP, name, slots[slot].n % 3 ? 5000 : 0);
}

static void forget_slot(unsigned slot, const char *name)
{
	slots[slot].step = FORGET;
	send_named(id_of(slot), SPAWN_FORGET, name, 0);
}

/* An answer to slot's request. True when the cycle is over. */
static bool answered(unsigned slot)
{
	struct slot *s = &slots[slot];
	char name[32];

	snprintf(name, sizeof name, "soak-%u", slot);
	switch (s->step) {
	case START:
		if (ends_itself(s->n)) {
			s->step = WAIT_EXIT;
		} else if (is_frozen_first(s->n)) {
			s->step = FREEZE;
			s->freeze_by = io_now_ms() + DEADLINE_MS;
			send_named(id_of(slot), SPAWN_FREEZE, name, 0);
		} else {
			stop_slot(slot, name);
		}
		return false;
	case FREEZE:
		stop_slot(slot, name);
		return false;
	case STOP:
		forget_slot(slot, name);
		return false;
	case FORGET:
		s->step = IDLE;
		return true;
	default:
		fail_msg("an answer nobody waits for");
		return false;
	}
}

static void exited(struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);
	struct sandbox_exit e = {0};
	char name[SANDBOX_NAME_MAX + 1];

	assert_true(get_str(&r, name, sizeof name) && sandbox_exit_decode(&r, &e) && get_ok(&r));
	unsigned slot = (unsigned)atoi(name + strlen("soak-"));
	if (slots[slot].step == WAIT_EXIT) {
		assert_int_equal(e.status, 0);
		forget_slot(slot, name);
	} else {
		assert_true(e.stopped);
	}
}

static void run_cycles(unsigned total)
{
	unsigned begun = 0, done = 0;

	for (unsigned slot = 0; slot < SLOTS && begun < total; slot++)
		begin(slot, begun++);
	while (done < total) {
		struct frame f;
		receive(&f);
		if (f.type == SPAWN_EXITED) {
			exited(&f);
		} else if (answered(f.id - 1)) {
			done++;
			if (begun < total)
				begin(f.id - 1, begun++);
		}
		frame_release(&f);
	}
}

static void no_sandbox_left(void)
{
	assert_true(eventually_zero(processes_of_all));
	assert_true(eventually_zero(groups)); /* one that is being made ahead has nobody in it for a moment */
	assert_true(eventually_zero(links));
}

static void test_cycles(void **unused)
{
	struct holds before;

	need_root();
	assert_int_equal(volume_make("top-soak", 64 << 20), 0);
	run_cycles(2 * SLOTS); /* what is made once is there */
	no_sandbox_left();
	holds_at_rest(&before);
	uint64_t begun = io_now_ms();
	run_cycles(cycles);
	uint64_t ms = io_now_ms() - begun;
	print_message("#   %u start-stop cycles, %u at a time: %.1f s, %.2f ms each\n", cycles, SLOTS,
		      (double)ms / 1000, (double)ms / cycles);
	no_sandbox_left();
	holds_the_same(&before);
	holds_release(&before);
}

/* -- in parallel --------------------------------------------------------------------------------------------------------- */

enum call { CALL_START, CALL_STOP, CALL_FORGET };

static void send_call(enum call call, unsigned n)
{
	char name[32];

	snprintf(name, sizeof name, "soak-%u", n);
	if (call == CALL_START) {
		struct sandbox_spec s = soak_spec(n, sleeper);
		send_start(n + 1, &s);
	} else {
		send_named(n + 1, call == CALL_STOP ? SPAWN_STOP : SPAWN_FORGET, name, 0);
	}
}

static void call_all(enum call call)
{
	unsigned sent = 0, done = 0;

	while (done < parallel) {
		struct frame f;
		while (sent < parallel && sent - done < IN_FLIGHT)
			send_call(call, sent++);
		receive(&f);
		if (f.type == SPAWN_OK)
			done++;
		frame_release(&f);
	}
}

/* One in each hierarchy that has any; but in that for disks only those that were made ahead. How many have another number: some
 * are being made, with nobody in them for a moment. */
static int uneven(void)
{
	cleanup_dir DIR *d = opendir("/sys/fs/cgroup");
	struct dirent *e;
	int bad = 0;

	while (d && (e = readdir(d)) != NULL) {
		cleanup_free char *path = xasprintf("/sys/fs/cgroup/%s", e->d_name);
		int n = e->d_name[0] == '.' ? 0 : groups_below(path);
		bad += n != 0 && n != (int)parallel && !(strcmp(e->d_name, "blkio") == 0 && n < (int)parallel);
	}
	return bad;
}

static void test_parallel(void **unused)
{
	struct holds before;

	need_root();
	holds_at_rest(&before);
	uint64_t t0 = io_now_ms();
	call_all(CALL_START);
	uint64_t t1 = io_now_ms();
	/* each: init and the program under its ids, one group per hierarchy */
	assert_int_equal(processes_of_all() >= (int)(2 * parallel), true);
	assert_true(eventually_zero(uneven));
	assert_true(cgroup_host()->kind == CGROUP_NONE || groups() >= (int)parallel);
	unsigned kib = memory_kib();
	uint64_t t2 = io_now_ms();
	call_all(CALL_STOP);
	call_all(CALL_FORGET);
	uint64_t t3 = io_now_ms();
	print_message("#   %u sandboxes at once: %.1f s to start, %.1f s to stop; spawner %u KiB private\n", parallel,
		      (double)(t1 - t0) / 1000, (double)(t3 - t2) / 1000, kib);
	no_sandbox_left();
	holds_the_same(&before);
	holds_release(&before);
}

static void test_nothing_left(void **unused)
{
	need_root();
	nothing_left();
}

static int soak_make(void **unused)
{
	cleanup_buf struct buf why = BUF_INIT;
	struct rlimit files;
	char path[128];

	if (geteuid() != 0)
		return 0;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < 8UL * parallel + 512) {
		parallel = (unsigned)(files.rlim_max - 512) / 8;
		print_message("#   only %u at once: eight descriptors each, and at most %ju here\n", parallel,
			      (uintmax_t)files.rlim_max);
	}
	if (state_make(NULL) < 0)
		return -1;
	snprintf(path, sizeof path, "%s/soak.log", state);
	log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	egress = egress_probe(&why);
	return log_fd < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_cycles),
	    cmocka_unit_test(test_parallel),
	    cmocka_unit_test(test_nothing_left),
	};

	if (argc > 1)
		cycles = (unsigned)atoi(argv[1]);
	if (argc > 2)
		parallel = (unsigned)atoi(argv[2]);
	if (cycles < SLOTS || parallel < 1 || parallel > 4096)
		return 2;
	return cmocka_run_group_tests(tests, soak_make, state_remove);
}
