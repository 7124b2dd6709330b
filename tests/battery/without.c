/* Walls that are not there: for tests/battery/mutations, which links a launcher whose calls of one step come here instead
 * (ld --wrap). The product has no switch for this. */
#define NO_WALL(step)                                                                                                  \
	int __wrap_##step(void);                                                                                       \
	int __wrap_##step(void)                                                                                        \
	{                                                                                                              \
		return 0;                                                                                              \
	}

NO_WALL(caps_bound)
NO_WALL(caps_drop)
NO_WALL(cgroup_enter)
NO_WALL(close_range)
NO_WALL(landlock_apply)
NO_WALL(no_new_privs)
NO_WALL(proc_mask)
NO_WALL(rlimit_apply)
NO_WALL(seccomp_apply)
NO_WALL(user_drop)
NO_WALL(user_write_oom)
