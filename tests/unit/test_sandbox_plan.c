/* The plan: what is mounted from where, in which order, for each shape of sandbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sandbox/plan.h"

static struct plan plan;

static void make(const struct sandbox_spec *spec, const struct plan_facts *facts)
{
	struct err err = ERR_INIT;

	assert_int_equal(plan_make(spec, facts, &plan, &err), 0);
	assert_true(plan.nsteps <= PLAN_MAX_STEPS);
	assert_true(plan.nmounts <= PLAN_MAX_MOUNTS);
}

static const struct plan_step *find(enum plan_op op, const char *target)
{
	for (size_t i = 0; i < plan.nsteps; i++)
		if (plan.steps[i].op == op && strcmp(plan.steps[i].target, target) == 0)
			return &plan.steps[i];
	return NULL;
}

static void app_without_volumes(void **state)
{
	struct sandbox_spec s = {.uid = 1000, .gid = 1000, .top_bytes = 5 << 20};
	struct plan_facts f = {.idmap = true};

	make(&s, &f);
	assert_int_equal(find(PLAN_POOL, "pool")->size, 5 << 20);
	assert_string_equal(find(PLAN_OVERLAY, "new")->upper, "pool/root");
	assert_string_equal(find(PLAN_OVERLAY, "new")->work, "pool/work");
	assert_string_equal(find(PLAN_OVERLAY, "new")->text, "m0");
	/* Never the base itself: its inodes would be shared with the host and all neighbours. */
	assert_null(find(PLAN_ATTACH, "/usr"));
	assert_string_equal(find(PLAN_OVERLAY, "new/usr")->text, "m1:none");
	assert_string_equal(find(PLAN_OVERLAY, "new/usr")->upper, "");
	assert_true(find(PLAN_FOLDER, "none") < find(PLAN_OVERLAY, "new/usr"));
	assert_int_equal(plan.mounts[1].source, PLAN_BASE_USR);
	assert_false(plan.mounts[1].write);
	assert_true(plan.mounts[1].idmap_optional);
}

static void app_with_layers(void **state)
{
	struct sandbox_spec s = {.uid = 1000, .nlayers = 3};
	struct plan_facts f = {
	    .layer_root = {true, false, true}, .layer_usr = {false, true}, .top = true, .idmap = true};

	make(&s, &f);
	/* m0..m2 are the layers, topmost first; m3 the skeleton, at the bottom; m4 the top. */
	assert_string_equal(find(PLAN_OVERLAY, "new")->text, "m0/root:m2/root:m3");
	assert_string_equal(find(PLAN_OVERLAY, "new")->upper, "m4/root");
	assert_true(plan.mounts[4].write);
	assert_int_equal(plan.mounts[4].source, PLAN_TOP);
	/* An app never gets a writable /usr. */
	assert_string_equal(find(PLAN_OVERLAY, "new/usr")->text, "m1/usr:m5");
	assert_string_equal(find(PLAN_OVERLAY, "new/usr")->upper, "");
	for (size_t i = 0; i < plan.nmounts; i++)
		assert_int_equal(plan.mounts[i].write, plan.mounts[i].source == PLAN_TOP);
}

static void usr_made_ahead(void **state)
{
	struct sandbox_spec s = {.uid = 1000, .nlayers = 1};
	struct plan_facts f = {.top = true, .idmap = true, .usr_ahead = true};

	plan_ahead(true, &plan);
	assert_int_equal(plan.nmounts, 1);
	assert_int_equal(plan.mounts[0].source, PLAN_BASE_USR);
	assert_false(plan.mounts[0].write);
	assert_true(plan.mounts[0].idmap);
	const struct plan_step *usr = find(PLAN_OVERLAY, "new/usr");
	assert_string_equal(usr->upper, "");
	assert_true(find(PLAN_FOLDER, strrchr(usr->text, ':') + 1) < usr);
	make(&s, &f);
	assert_true(find(PLAN_MOVE, "/usr") > find(PLAN_OVERLAY, "new"));
	assert_null(find(PLAN_OVERLAY, "new/usr"));
	/* programs of its own, or root: not that */
	f.layer_usr[0] = true;
	make(&s, &f);
	assert_null(find(PLAN_MOVE, "/usr"));
	assert_string_equal(find(PLAN_OVERLAY, "new/usr")->text, "m0/usr:m3");
	f.layer_usr[0] = false;
	s.profile = SANDBOX_BUILD_ROOT;
	make(&s, &f);
	assert_null(find(PLAN_MOVE, "/usr"));
	assert_string_equal(find(PLAN_OVERLAY, "new/usr")->upper, "m2/usr");
}

static void build_root(void **state)
{
	struct sandbox_spec s = {.profile = SANDBOX_BUILD_ROOT};
	struct plan_facts f = {.top = true, .idmap = true, .dpkg = true};

	make(&s, &f);
	const struct plan_step *usr = find(PLAN_OVERLAY, "new/usr"), *dpkg = find(PLAN_OVERLAY, "new/var/lib/dpkg");
	assert_string_equal(usr->upper, "m1/usr");
	assert_string_equal(usr->work, "m1/usr-work");
	assert_string_equal(dpkg->upper, "m1/dpkg");
	/* Copying up needs owners that exist: no fallback to a mount without ids. */
	for (size_t i = 0; i < plan.nmounts; i++)
		assert_int_equal(plan.mounts[i].idmap_optional, plan.mounts[i].source == PLAN_SKELETON);
}

static void walls_are_always_there(void **state)
{
	static const char *const masked[] = {"/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/timer_list",
					     "/proc/sysrq-trigger"};
	static const char *const ahead[] = {"/dev", "/proc", "/tmp", "/run"};
	struct sandbox_spec s = {.uid = 1000, .gid = 1001};
	struct plan_facts f = {.idmap = true};

	plan_ahead(false, &plan);
	assert_true(plan.nsteps <= PLAN_MAX_STEPS);
	assert_int_equal(plan.nmounts, 0); /* a shell has no sources */
	for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
		assert_non_null(find(PLAN_MASK, masked[i]));
		assert_true(find(PLAN_MASK, masked[i]) > find(PLAN_PROC, "/proc"));
	}
	assert_true(find(PLAN_FREEZE, "/proc/sys") > find(PLAN_PROC, "/proc"));
	assert_non_null(find(PLAN_DEVICE, "/dev/null"));
	assert_int_equal(find(PLAN_TMPFS, "/tmp")->mode, 01777);
	assert_true(find(PLAN_TMPFS, "/dev/shm") > find(PLAN_TMPFS, "/dev"));
	for (size_t i = 0; i < plan.nsteps; i++) {
		const char *target = plan.steps[i].target;
		size_t top = 1 + strcspn(target + 1, "/");
		bool moved = false;

		for (size_t k = 0; k < sizeof ahead / sizeof *ahead; k++)
			moved |= strlen(ahead[k]) == top && strncmp(target, ahead[k], top) == 0;
		assert_true(moved);
	}
	make(&s, &f);
	for (size_t i = 0; i < sizeof ahead / sizeof *ahead; i++)
		assert_true(find(PLAN_MOVE, ahead[i]) > find(PLAN_OVERLAY, "new"));
	assert_true(find(PLAN_OWNER, "/run") > find(PLAN_MOVE, "/run"));
	assert_int_equal(find(PLAN_OWNER, "/run")->owner, s.uid);
	assert_int_equal(find(PLAN_OWNER, "/run")->group, s.gid);
	for (size_t i = 0; i < plan.nsteps; i++)
		assert_int_not_equal(strncmp(plan.steps[i].target, "/sys", 4), 0);
}

static void binds(void **state)
{
	static const char *const walls[] = {"/proc", "/proc/sys", "/dev", "/dev/null", "/sys", "/sys/fs"};
	struct sandbox_spec s = {.uid = 1000, .nbinds = 2};
	struct plan_facts f = {.idmap = true};
	struct err err = ERR_INIT;

	s.binds[0] = (struct sandbox_bind){.target = (char[]){"/data"}, .write = true};
	s.binds[1] = (struct sandbox_bind){.target = (char[]){"/device"}};
	make(&s, &f);
	const struct plan_step *data = find(PLAN_ATTACH, "/data");
	assert_true(plan.mounts[data->mount].write);
	assert_false(plan.mounts[find(PLAN_ATTACH, "/device")->mount].write);
	/* Last of all, so that they are seen. */
	assert_ptr_equal(find(PLAN_ATTACH, "/device"), &plan.steps[plan.nsteps - 1]);
	for (size_t i = 0; i < sizeof walls / sizeof *walls; i++) {
		char target[32];

		snprintf(target, sizeof target, "%s", walls[i]);
		s.binds[0].target = target;
		assert_int_equal(plan_make(&s, &f, &plan, &err), -1);
	}
}

static void largest_fits(void **state)
{
	struct sandbox_spec s = {.profile = SANDBOX_BUILD_ROOT, .nlayers = SANDBOX_MAX_LAYERS};
	struct plan_facts f = {.top = true, .idmap = true, .dpkg = true};
	char targets[SANDBOX_MAX_BINDS][16];

	for (size_t i = 0; i < SANDBOX_MAX_LAYERS; i++)
		f.layer_root[i] = f.layer_usr[i] = true;
	for (s.nbinds = 0; s.nbinds < SANDBOX_MAX_BINDS; s.nbinds++) {
		snprintf(targets[s.nbinds], sizeof targets[0], "/b%zu", s.nbinds);
		s.binds[s.nbinds].target = targets[s.nbinds];
	}
	make(&s, &f);
	assert_string_equal(find(PLAN_OVERLAY, "new")->text,
			    "m0/root:m1/root:m2/root:m3/root:m4/root:m5/root:m6/root:m7/root:m8");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(app_without_volumes),    cmocka_unit_test(app_with_layers),
	    cmocka_unit_test(usr_made_ahead),	      cmocka_unit_test(build_root),
	    cmocka_unit_test(walls_are_always_there), cmocka_unit_test(binds),
	    cmocka_unit_test(largest_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
