/* Compiles the profile to BPF while Spaced is built: `filter` prints the instructions that sandbox/seccomp.c carries. A start
 * then only loads them, and what libseccomp knows at run time does not matter.
 *
 * libseccomp's own program compares with each number in turn, or in a tree of single numbers. Loading one (the kernel checks,
 * converts and compiles it, and asks it about every call for its table of calls that are always allowed) takes a time that
 * grows with its length, so it is written anew: a binary search over ranges of numbers with the same answer, and what is asked
 * about arguments without what is known already, each test and each answer once. Native ABI only: i386 and x32 calls do not exist
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

/* -- decisions --------------------------------------------------------------------------------------------------------- */

/* A filter as a graph without two equal nodes: one test of a masked word of seccomp_data, or an answer. */
struct node {
	enum { ANSWER, EQUAL, AT_LEAST } kind;
	uint32_t word, mask, value; /* ANSWER: only `value` */
	int yes, no;		    /* indices */
	size_t place, loaded;	    /* where it was emitted; behind its load */
	bool reached, loads;
};
static struct node nodes[MAX];
static int nnodes;

static int node_of(struct node want)
{
	if (want.kind != ANSWER && want.yes == want.no)
		return want.yes;
	for (int i = 0; i < nnodes; i++) {
		const struct node *n = &nodes[i];

		if (n->kind == want.kind && n->word == want.word && n->mask == want.mask && n->value == want.value &&
		    n->yes == want.yes && n->no == want.no)
			return i;
	}
	if (nnodes == MAX)
		die("more than %d decisions", MAX);
	nodes[nnodes] = want;
	return nnodes++;
}

static int answer(uint32_t value)
{
	return node_of((struct node){.kind = ANSWER, .value = value, .yes = -1, .no = -1});
}

/* What the tests on the way have told. */
struct fact {
	const struct fact *before;
	uint32_t word, mask, value;
	bool holds;
};

/* Whether `word & mask == value`, as far as it is known: 0, 1, or -1. */
static int decided(const struct fact *f, uint32_t word, uint32_t mask, uint32_t value)
{
	if (value & ~mask)
		return 0;
	if (mask == 0)
		return 1;
	for (; f; f = f->before) {
		if (f->word != word)
			continue;
		if (f->holds && (mask & ~f->mask) == 0)
			return (f->value & mask) == value;
		if (!f->holds && mask == f->mask && value == f->value)
			return 0;
		/* one bit that is not this is that */
		if (!f->holds && mask == f->mask && (mask & (mask - 1)) == 0)
			return 1;
	}
	return -1;
}

/* What the program decides from `pc` on, with that word behind that mask in its accumulator. */
static int decision(const struct program *p, size_t pc, uint32_t word, uint32_t mask, const struct fact *facts)
{
	for (; pc < p->n; pc++) {
		const struct sock_filter *f = &p->code[pc];

		if (f->code == (BPF_RET | BPF_K))
			return answer(f->k);
		if (f->code == (BPF_LD | BPF_W | BPF_ABS)) {
			word = f->k;
			mask = UINT32_MAX;
		} else if (f->code == (BPF_ALU | BPF_AND | BPF_K)) {
			mask &= f->k;
		} else if (f->code == (BPF_JMP | BPF_JA)) {
			pc += f->k;
		} else if (f->code == (BPF_JMP | BPF_JEQ | BPF_K)) {
			int known = decided(facts, word, mask, f->k);
			if (known < 0) {
				struct fact yes = {facts, word, mask, f->k, true},
					    no = {facts, word, mask, f->k, false};
				struct node n = {.kind = EQUAL, .word = word, .mask = mask, .value = f->k};
				n.yes = decision(p, pc + 1 + f->jt, word, mask, &yes);
				n.no = decision(p, pc + 1 + f->jf, word, mask, &no);
				return node_of(n);
			}
			pc += known ? f->jt : f->jf;
		} else {
			die("instruction %zu: %#x about an argument", pc, f->code);
		}
	}
	die("no end");
}

static int outcome_node(const struct program *p, struct outcome o)
{
	return o.answer ? answer(o.value) : decision(p, o.value, 0, 0, NULL);
}

static int search(const struct program *p, const struct range *r, size_t n)
{
	size_t half = n / 2;

	if (n == 1)
		return outcome_node(p, r->outcome);
	struct node at = {
	    .kind = AT_LEAST, .word = offsetof(struct seccomp_data, nr), .mask = UINT32_MAX, .value = r[half].from};
	at.no = search(p, r, half);
	at.yes = search(p, r + half, n - half);
	return node_of(at);
}

/* -- writing it ------------------------------------------------------------------------------------------------------- */

static void emit(struct program *p, struct sock_filter f)
{
	if (p->n == MAX)
		die("longer than %d instructions", MAX);
	p->code[p->n++] = f;
}

static bool same_load(const struct node *a, const struct node *b)
{
	return a->kind != ANSWER && b->kind != ANSWER && a->word == b->word && a->mask == b->mask;
}

/* Whoever leads to a node comes before it; `no` comes right after, where it can. */
static void sort(int at, int order[MAX], int *left)
{
	struct node *n = &nodes[at];

	if (n->reached)
		return;
	n->reached = true;
	if (n->kind != ANSWER) {
		sort(n->yes, order, left);
		sort(n->no, order, left);
	}
	order[--*left] = at;
}

static void write_node(struct program *p, struct node *n)
{
	n->place = p->n;
	if (n->kind == ANSWER) {
		n->loaded = p->n;
		emit(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, n->value));
		return;
	}
	if (n->loads)
		emit(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, n->word));
	if (n->loads && n->mask != UINT32_MAX)
		emit(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, n->mask));
	n->loaded = p->n;
	emit(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_K | (n->kind == EQUAL ? BPF_JEQ : BPF_JGE), n->value, 0, 0));
}

static uint8_t jump(const struct node *from, const struct node *to)
{
	size_t distance = (same_load(from, to) ? to->loaded : to->place) - from->loaded - 1;

	if (distance > UINT8_MAX)
		die("%zu instructions are too far for a jump", distance);
	return (uint8_t)distance;
}

static void write_from(int root, struct program *p)
{
	static int order[MAX];
	int left = MAX;

	sort(root, order, &left);
	nodes[root].loads = nodes[root].kind != ANSWER;
	for (int i = left; i < MAX; i++) {
		const struct node *n = &nodes[order[i]];
		if (n->kind == ANSWER)
			continue;
		nodes[n->yes].loads |= !same_load(n, &nodes[n->yes]);
		nodes[n->no].loads |= !same_load(n, &nodes[n->no]);
	}
	for (int i = left; i < MAX; i++)
		write_node(p, &nodes[order[i]]);
	for (int i = left; i < MAX; i++) {
		const struct node *n = &nodes[order[i]];
		if (n->kind == ANSWER)
			continue;
		p->code[n->loaded].jt = jump(n, &nodes[n->yes]);
		p->code[n->loaded].jf = jump(n, &nodes[n->no]);
	}
}

static void rewrite(const struct program *from, uint32_t arch, struct program *to)
{
	static struct range ranges[MAX];
	size_t n = find_ranges(from, arch, ranges);

	write_from(node_of((struct node){.kind = EQUAL,
					 .word = offsetof(struct seccomp_data, arch),
					 .mask = UINT32_MAX,
					 .value = arch,
					 .yes = search(from, ranges, n),
					 .no = answer(SECCOMP_RET_ERRNO | ENOSYS)}),
		   to);
}

/* The proof: at every number, whatever the arguments, and on another ABI, both come to the same. Of what is above it trusts
 * decided(), by which both are read; tests/unit/test_sandbox_seccomp.c asks the result itself. */
static void compare(const struct program *a, const struct program *b, uint32_t arch)
{
	static struct range ra[MAX], rb[MAX];
	const uint64_t end = 1ULL << 32; /* -1 is a number as well, of which libseccomp knows */
	size_t na = find_ranges(a, arch, ra), nb = find_ranges(b, arch, rb), i = 0, k = 0;

	while (i < na && k < nb) {
		if (outcome_node(a, ra[i].outcome) != outcome_node(b, rb[k].outcome))
			die("call %u got another answer", ra[i].from > rb[k].from ? ra[i].from : rb[k].from);
		uint64_t next_a = i + 1 < na ? ra[i + 1].from : end;
		uint64_t next_b = k + 1 < nb ? rb[k + 1].from : end;
		i += next_a <= next_b;
		k += next_b <= next_a;
	}
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
