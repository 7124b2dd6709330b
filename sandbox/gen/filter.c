/* Compiles the profile to BPF while Spaced is built: `filter` prints the instructions that sandbox/seccomp.c carries. A start
 * then only loads them, and what libseccomp knows at run time does not matter.
 *
 * libseccomp's own program compares with each number in turn, or in a tree of single numbers. Loading one (the kernel checks,
 * converts and compiles it, and asks it about every call for its table of calls that are always allowed) takes a time that
 * grows with its length, so it is written anew as a binary search over ranges of numbers with the same answer: a third
 * of the length. What it does about arguments is taken over as it is. Native ABI only: i386 and x32 calls do not exist
 * (ENOSYS), which closes socketcall as well (battery D2). */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sandbox/seccomp_profile.h"

#define ABSENT SCMP_ACT_ERRNO(ENOSYS)
#define MAX 4096

__attribute__((format(printf, 1, 2))) _Noreturn static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("filter: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	exit(1);
}

/* -- libseccomp's ---------------------------------------------------------------------------------------------------- */

/* A call that this libseccomp or this machine does not know stays under the default. */
static void add_names(scmp_filter_ctx ctx, uint32_t action, const char *const *names)
{
	for (; *names; names++) {
		int nr = seccomp_syscall_resolve_name(*names);

		if (nr >= 0 && seccomp_rule_add(ctx, action, nr, 0) < 0)
			die("rule for %s", *names);
	}
}

static void add_rules(scmp_filter_ctx ctx)
{
	for (const struct seccomp_rule *r = seccomp_rules; r->name; r++) {
		struct scmp_arg_cmp args[3];
		unsigned n = 0;
		int nr = seccomp_syscall_resolve_name(r->name);

		if (nr < 0)
			continue;
		for (; n < 3 && r->args[n].mask; n++)
			args[n] = (struct scmp_arg_cmp){r->args[n].arg, SCMP_CMP_MASKED_EQ, r->args[n].mask,
							r->args[n].value};
		/* an errno of 0 is a success in which nothing is done */
		unsigned code = r->refuse == SECCOMP_PRETEND ? 0 : (unsigned)r->refuse;
		if (seccomp_rule_add_array(ctx, r->refuse ? SCMP_ACT_ERRNO(code) : SCMP_ACT_ALLOW, nr, n, args) < 0)
			die("rule for %s", r->name);
	}
}

/* It writes BPF only to a descriptor. */
static size_t compile(struct sock_filter code[MAX])
{
	scmp_filter_ctx ctx = seccomp_init(ABSENT);
	int fd = memfd_create("seccomp", MFD_CLOEXEC);

	if (!ctx || fd < 0)
		die("out of memory");
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, ABSENT);
	add_names(ctx, SCMP_ACT_ALLOW, seccomp_allowed);
	add_names(ctx, SCMP_ACT_ERRNO(EPERM), seccomp_refused);
	add_rules(ctx);
	if (seccomp_export_bpf(ctx, fd) < 0)
		die("export");
	ssize_t n = pread(fd, code, MAX * sizeof *code, 0);
	if (n <= 0 || n == (ssize_t)(MAX * sizeof *code) || n % (ssize_t)sizeof *code)
		die("%zd bytes of BPF", n);
	seccomp_release(ctx);
	close(fd);
	return (size_t)n / sizeof *code;
}

/* -- ranges ---------------------------------------------------------------------------------------------------------- */

struct program {
	struct sock_filter code[MAX];
	size_t n;
};

/* What a call comes to: an answer, or, where arguments are looked at, the instruction that loads the first. */
struct outcome {
	bool answer;
	uint32_t value;
};

struct range {
	uint32_t from;
	struct outcome outcome;
};

static bool jumps(const struct sock_filter *f, uint32_t a)
{
	switch (BPF_OP(f->code)) {
	case BPF_JEQ:
		return a == f->k;
	case BPF_JGT:
		return a > f->k;
	case BPF_JGE:
		return a >= f->k;
	}
	die("a jump on bits of the number");
}

static struct outcome run(const struct program *p, uint32_t arch, uint32_t nr)
{
	uint32_t a = 0;

	for (size_t pc = 0; pc < p->n; pc++) {
		const struct sock_filter *f = &p->code[pc];

		if (f->code == (BPF_RET | BPF_K))
			return (struct outcome){true, f->k};
		if (f->code == (BPF_LD | BPF_W | BPF_ABS)) {
			if (f->k != offsetof(struct seccomp_data, nr) && f->k != offsetof(struct seccomp_data, arch))
				return (struct outcome){false, (uint32_t)pc};
			a = f->k == offsetof(struct seccomp_data, nr) ? nr : arch;
		} else if (f->code == (BPF_JMP | BPF_JA)) {
			pc += f->k;
		} else if (BPF_CLASS(f->code) == BPF_JMP) {
			pc += jumps(f, a) ? f->jt : f->jf;
		} else {
			die("instruction %zu: %#x before any argument", pc, f->code);
		}
	}
	die("no end");
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The answer changes only at numbers that the program compares with, or one above. */
static size_t find_ranges(const struct program *p, uint32_t arch, struct range out[MAX])
{
	static uint32_t edges[2 * MAX + 1];
	size_t n = 1, found = 0;

	for (size_t i = 0; i < p->n; i++) {
		if (BPF_CLASS(p->code[i].code) != BPF_JMP || BPF_OP(p->code[i].code) == BPF_JA)
			continue;
		edges[n++] = p->code[i].k;
		if (p->code[i].k != UINT32_MAX)
			edges[n++] = p->code[i].k + 1;
	}
	qsort(edges, n, sizeof *edges, by_value);
	for (size_t i = 0; i < n; i++) {
		struct outcome o = run(p, arch, edges[i]);

		if (found && out[found - 1].outcome.answer == o.answer && out[found - 1].outcome.value == o.value)
			continue;
		out[found++] = (struct range){edges[i], o};
	}
	return found;
}

static void emit(struct program *p, struct sock_filter f)
{
	if (p->n == MAX)
		die("longer than %d instructions", MAX);
	p->code[p->n++] = f;
}

/* A range that needs arguments jumps to what is put behind all the ranges; `later` keeps where from. */
static void search(struct program *p, const struct range *r, size_t n, size_t later[MAX])
{
	if (n == 1 && r->outcome.answer) {
		emit(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, r->outcome.value));
		return;
	}
	if (n == 1) {
		later[p->n] = r->outcome.value;
		emit(p, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
		return;
	}
	size_t half = n / 2, at = p->n;
	emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, r[half].from, 0, 0));
	search(p, r, half, later);
	if (p->n - at - 1 > UINT8_MAX)
		die("a half of the search is too long for a jump");
	p->code[at].jt = (uint8_t)(p->n - at - 1);
	search(p, r + half, n - half, later);
}

/* What can be reached from `start`, in the same order, so that jumps only become shorter. */
static void take_over(struct program *to, const struct program *from, size_t start)
{
	static bool reached[MAX];
	static size_t place[MAX];
	size_t n = to->n;

	memset(reached, 0, sizeof reached);
	reached[start] = true;
	for (size_t i = start; i < from->n; i++) {
		const struct sock_filter *f = &from->code[i];

		if (!reached[i])
			continue;
		place[i] = n++;
		if (f->code == (BPF_JMP | BPF_JA))
			reached[i + 1 + f->k] = true;
		else if (BPF_CLASS(f->code) == BPF_JMP)
			reached[i + 1 + f->jt] = reached[i + 1 + f->jf] = true;
		else if (BPF_CLASS(f->code) != BPF_RET)
			reached[i + 1] = true;
	}
	for (size_t i = start; i < from->n; i++) {
		struct sock_filter f = from->code[i];

		if (!reached[i])
			continue;
		if (f.code == (BPF_JMP | BPF_JA)) {
			f.k = (uint32_t)(place[i + 1 + f.k] - place[i] - 1);
		} else if (BPF_CLASS(f.code) == BPF_JMP) {
			f.jt = (uint8_t)(place[i + 1 + f.jt] - place[i] - 1);
			f.jf = (uint8_t)(place[i + 1 + f.jf] - place[i] - 1);
		}
		emit(to, f);
	}
}

static void rewrite(const struct program *from, uint32_t arch, struct program *to)
{
	static struct range ranges[MAX];
	static size_t later[MAX];
	size_t n = find_ranges(from, arch, ranges);

	memset(later, 0xff, sizeof later);
	emit(to, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
	emit(to, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arch, 1, 0));
	emit(to, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
	emit(to, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
	search(to, ranges, n, later);
	for (size_t i = 0, end = to->n; i < end; i++) {
		if (later[i] == SIZE_MAX)
			continue;
		to->code[i].k = (uint32_t)(to->n - i - 1);
		take_over(to, from, later[i]);
	}
}

/* The proof: at every number that either program knows of, and on another ABI, both come to the same. */
static void compare(const struct program *a, const struct program *b, uint32_t arch)
{
	static struct range ra[MAX], rb[MAX];
	size_t na = find_ranges(a, arch, ra), nb = find_ranges(b, arch, rb);

	if (na != nb)
		die("%zu ranges became %zu", na, nb);
	for (size_t i = 0; i < na; i++)
		if (ra[i].from != rb[i].from || ra[i].outcome.answer != rb[i].outcome.answer ||
		    (ra[i].outcome.answer && ra[i].outcome.value != rb[i].outcome.value))
			die("call %u got another answer", ra[i].from);
	struct outcome x = run(a, ~arch, 0), y = run(b, ~arch, 0);
	if (!x.answer || !y.answer || x.value != y.value)
		die("another ABI got another answer");
}

int main(void)
{
	static struct program raw, out;
	uint32_t arch = seccomp_arch_native(); /* libseccomp's names of ABIs are the kernel's AUDIT_ARCH_* */

	raw.n = compile(raw.code);
	rewrite(&raw, arch, &out);
	compare(&raw, &out, arch);
	printf("/* %zu instructions; %zu as libseccomp has them. */\n", out.n, raw.n);
	for (size_t i = 0; i < out.n; i++)
		printf("{%#x, %u, %u, %#x},\n", out.code[i].code, out.code[i].jt, out.code[i].jf, out.code[i].k);
	return 0;
}
