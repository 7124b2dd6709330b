/* Capabilities: none, in any of the five sets, with locked securebits, so that neither uid 0 nor exec brings one back
 * (CVE-2019-10152, CVE-2022-27650; battery C5, C6). The build-root profile keeps a few over its own uid range, for apt. */
#include <errno.h>
#include <linux/securebits.h>
#include <sys/capability.h>
#include <sys/prctl.h>

#include "sandbox/contain.h"

static const cap_value_t build_root[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
					 CAP_SETUID, CAP_SETGID,       CAP_SETFCAP};
#define BUILD_ROOT_CAPS (sizeof build_root / sizeof *build_root)

/* Root stays special in the build-root profile: dpkg's children are exec'd as uid 0 and must get the bounding set. */
#define LOCKS                                                                                                          \
	(SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |                              \
	 SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)
#define NO_ROOT (SECBIT_NOROOT | SECBIT_NO_SETUID_FIXUP)

static bool kept(const struct contain *c, cap_value_t cap)
{
	for (size_t i = 0; c->profile == SANDBOX_BUILD_ROOT && i < BUILD_ROOT_CAPS; i++)
		if (build_root[i] == cap)
			return true;
	return false;
}

int caps_bound(struct contain *c, struct err *err)
{
	unsigned bits = LOCKS | (c->profile == SANDBOX_BUILD_ROOT ? 0 : NO_ROOT);

	for (cap_value_t cap = 0; cap < cap_max_bits(); cap++)
		if (!kept(c, cap) && cap_drop_bound(cap) < 0)
			return err_set(err, errno, "bounding set, capability %d", cap);
	if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0 || prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) != (int)bits)
		return err_set(err, errno, "securebits");
	return 0;
}

static int verify(const struct contain *c, cap_t now, struct err *err)
{
	static const cap_flag_t sets[] = {CAP_EFFECTIVE, CAP_PERMITTED, CAP_INHERITABLE};

	for (cap_value_t cap = 0; cap < cap_max_bits(); cap++) {
		int bound = kept(c, cap) ? 0 : cap_get_bound(cap);

		if (bound != 0)
			return err_set(err, bound < 0 ? errno : EPERM, "capability %d is still in the bounding set",
				       cap);
		for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
			cap_flag_value_t v = CAP_CLEAR;

			cap_get_flag(now, cap, sets[i], &v);
			if (v == CAP_SET && (!kept(c, cap) || sets[i] == CAP_INHERITABLE))
				return err_set(err, EPERM, "capability %d is still there", cap);
		}
	}
	return 0;
}

int caps_drop(struct contain *c, struct err *err)
{
	cap_t set = cap_init();
	int rc = -1;

	if (!set)
		return err_set(err, errno, "capabilities");
	if (c->profile == SANDBOX_BUILD_ROOT) {
		cap_set_flag(set, CAP_PERMITTED, BUILD_ROOT_CAPS, build_root, CAP_SET);
		cap_set_flag(set, CAP_EFFECTIVE, BUILD_ROOT_CAPS, build_root, CAP_SET);
	}
	if (cap_set_proc(set) < 0)
		err_set(err, errno, "drop all capabilities");
	else if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		err_set(err, errno, "ambient capabilities");
	else
		rc = 0;
	cap_free(set);
	cap_t now = rc == 0 ? cap_get_proc() : NULL;
	if (rc == 0 && !now)
		rc = err_set(err, errno, "read back capabilities");
	if (rc == 0)
		rc = verify(c, now, err);
	cap_free(now);
	return rc;
}

int no_new_privs(struct contain *c, struct err *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return err_set(err, errno, "no_new_privs");
	return 0;
}
