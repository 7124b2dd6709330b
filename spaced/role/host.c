/* See host.h. `spacectl doctor` tells the same at length. */
#include "spaced/role/host.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "sandbox/base.h"
#include "sandbox/protection.h"

/* Tried in a child: the answer is its exit status, an errno. */
static int try_unshare(int flags)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(unshare(flags) < 0 ? errno : 0);
	if (pid < 0)
		return errno;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

int host_check(struct err *err)
{
	int userns = try_unshare(CLONE_NEWUSER);

	if (userns)
		return err_set(
		    err, userns,
		    "this host gives no user namespaces, without which no app can be contained (see the sysctls "
		    "user.max_user_namespaces and, in a container, what it may do)");
	int mounts = try_unshare(CLONE_NEWNS | CLONE_NEWNET);
	if (mounts)
		return err_set(
		    err, mounts,
		    "root here may not make mount and network namespaces: a container needs the capabilities "
		    "CAP_SYS_ADMIN and CAP_NET_ADMIN, or be privileged");
	return 0;
}

void host_report(void)
{
	const struct protection *p[PROTECTIONS];
	struct sandbox_host h;
	pid_t pid = fork();

	if (pid != 0)
		return; /* the parent's loop reaps it */
	sandbox_probe(&h);
	size_t n = protections_of(&h, p);
	for (size_t i = 0; i < n; i++)
		if (!p[i]->given)
			log_warn("missing on this host: %s: %s (%s)", p[i]->name, p[i]->lost, p[i]->mend);
	_exit(0);
}

void host_report_base(const char *state)
{
	char name[BASE_NAME_MAX + 1], id[BASE_ID];

	base_default(state, name);
	if (strcmp(name, BASE_HOST) == 0)
		log_info(
		    "Spaces stand on the host's /usr and share its cached pages with what the host runs: for hostile "
		    "tenants make a base of their own (as root: spacectl base create NAME; spacectl base default "
		    "NAME)");
	else if (base_newest(state, name, id))
		log_info("Spaces stand on the base %s", id);
	else
		log_warn("the default base `%s` is not there: builds fail (spacectl base default host)", name);
}
