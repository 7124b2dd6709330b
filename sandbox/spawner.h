/* The spawner: the one privileged role besides the parent. Tiny, single-threaded, in a private mount namespace. It
 * parses nothing but these frames (base/frame.h), which come from the control role (all verbs) and the proxies
 * (SPAWN_OPEN only; their channels are introduced by control, SPAWN_PEER). Every request is answered once, with the same id: SPAWN_OK (payload as below) or SPAWN_ERROR
 * {u32 errno, str message}. It answers in any order: slow work never blocks a quick verb of another sandbox.
 *
 * Sandboxes are supervised by one monitor process each, which outlives the spawner: on start the spawner connects to
 * all monitors it finds below the state folder and knows again what runs (SPAWN_LIST).
 *
 * Volumes are sparse ext4 images of a fixed size below STATE/volumes (so the kernel enforces bytes and inodes), mounted
 * only inside the spawner's namespace and given to sandboxes as idmapped mounts: ids on disk are ids inside. */
#ifndef SANDBOX_SPAWNER_H
#define SANDBOX_SPAWNER_H

#include "base/frame.h"
#include "sandbox/exec.h"
#include "sandbox/limits.h"
#include "sandbox/spec.h"

enum spawn_verb {
	SPAWN_START =
	    1,	    /* {spec, u8 has_stdin, u8 has_stdout} fds: log (O_APPEND), [stdin], [stdout] -> {} once exec'd.
			    Without has_stdout stdout goes to the log too. The log's copying is the monitor's. */
	SPAWN_STOP, /* {str name, u32 grace_ms}: SIGTERM to the main process, after grace all are killed -> {} when gone
			    and cleaned up. grace 0: kill at once. */
	SPAWN_FREEZE, /* {str name} -> {} once frozen; ETIMEDOUT: it runs on; ECANCELED: thawed or stopped meanwhile */
	SPAWN_THAW,   /* {str name} -> {} at once */
	SPAWN_LIST, /* {} -> {u32 n, n times: str name, u8 running, u64 started wall ms, exit record (zero when running)} */
	SPAWN_FORGET, /* {str name}: an exited sandbox need not be listed any more -> {} */
	SPAWN_OPEN, /* {str name, u32 n<=16} -> {} fds: n TCP sockets (SOCK_NONBLOCK) made inside its network namespace */
	SPAWN_LISTENERS, /* {str name} -> {u32 n, n times: str "127.0.0.1:8000"} all TCP sockets in LISTEN state inside */
	SPAWN_STATS, /* {str name} -> {u64 memory bytes, u64 cpu usec, u32 pids, u64 memory limit, u64 memory peak, u64
			throttled usec, u64 processes killed by the memory limit, u32 thousandths of a CPU, u32 pids limit,
			disk top, disk data, u64 received, u64 sent (bytes from the Internet, and to it), str cgroup_path()}; disk: {u64 used,
			u64 size, u64 inodes used, u64 inodes}. More may follow: readers take what they know. 0: no limit, or
			not known. */
	SPAWN_VOLUME_CREATE, /* {str name, u64 bytes} -> {} a fresh, empty volume; EEXIST */
	SPAWN_VOLUME_RENAME, /* {str from, str to} -> {} flushed to disk first: durable; EEXIST, EBUSY while in use for writing */
	SPAWN_VOLUME_REMOVE, /* {str name} -> {} also when it does not exist; EBUSY while in use */
	SPAWN_PEER,	     /* {} fds: a proxy's channel, on which SPAWN_OPEN alone is answered -> {} */
	SPAWN_VOLUME_LIST, /* {} -> {u32 n, n times: str name, u64 bytes used on disk}; as many frames as needed: u8 more first */
	SPAWN_EXEC, /* {str name, exec_request}: a command inside, as exec.h has it; a frozen sandbox is thawed, and not
		       frozen (EBUSY) while commands run -> {u32 exec} fds: exec_ends() */
	SPAWN_EXEC_SIGNAL, /* {str name, u32 exec, u32 signal}; signal 0: nobody is there any more, SIGHUP and five
			      seconds later SIGKILL -> {} */

	SPAWN_VOLUME_ENSURE, /* {str name data-*, u64 bytes} -> {} it is there, with at least so many; EBUSY: it can be
				     grown only when nobody uses it */
	SPAWN_BASE_REMOVE, /* {str id}: a base image (base.h) and its record -> {} also when it is not there; EBUSY while in use */
	SPAWN_PAGE_OUT, /* {str name}: what is frozen, to swap (cgroup.h); a thaw ends it -> {} when done; ENOTSUP, ENOSPC, ECANCELED */

	SPAWN_OK = 100,
	SPAWN_ERROR = 101,  /* {u32 errno, str message} */
	SPAWN_EXITED = 102, /* event, id 0: {str name, exit record} */
	SPAWN_EXEC_ENDED =
	    103,	   /* event, id 0: {str name, u32 exec, u32 status, str why}; `why` when the command did not
				   end by itself. Comes before the sandbox's own SPAWN_EXITED. A spawner's end is the
				   end of its commands: the next one kills them, without an event. */
	SPAWN_LIMIT = 104, /* event, id 0: {str name, u8 enum limit_kind, str sentence}: it runs on, but felt a limit */
};

/* Runs the role until the control channel closes. `control` is a SEQPACKET socket.
 * `state` is an absolute path. Returns the exit status of the process. */
struct spawner_config {
	const char *state; /* state folder; uses state/volumes and state/sandboxes (made here, 0700 root) */
	int control;
	uint32_t
	    id_base; /* as root: a spec's range is one of those that begin here, SANDBOX_IDS each, or it is refused: what
			     control says is no way to the ids of the host's own users, nor to half of another's range.
			     An app may get another one, behind those: shells.h */
};
int spawner_main(const struct spawner_config *config);

#endif
