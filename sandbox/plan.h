/* How the inside of a sandbox is put together, as data: which mounts are taken from the host, and the ordered steps
 * that make a root out of them. Pure, so that the decisions are tested without root; mnt.c carries it out. */
#ifndef SANDBOX_PLAN_H
#define SANDBOX_PLAN_H

#include "sandbox/sandbox.h"

#define PLAN_MAX_MOUNTS (SANDBOX_MAX_LAYERS + SANDBOX_MAX_BINDS + 4)
#define PLAN_MAX_STEPS 128

enum plan_source { PLAN_BASE_USR, PLAN_SKELETON, PLAN_LAYER, PLAN_TOP, PLAN_DPKG, PLAN_BIND };

/* One detached copy of a mount of the host's: nosuid and nodev always. */
struct plan_mount {
	enum plan_source source;
	size_t index; /* of PLAN_LAYER, PLAN_BIND */
	bool write;
	bool idmap;
	bool idmap_optional; /* a file system that cannot be idmapped still does: owners then show as nobody */
};

enum plan_op {
	PLAN_STAGE,   /* attach `mount` at `target` in the staging folder (made) */
	PLAN_FOLDER,  /* make `target` in the staging folder */
	PLAN_POOL,    /* tmpfs of `size` at `target` in the staging folder: the writable layer without a volume */
	PLAN_OVERLAY, /* at `target` in the staging folder, which is "new" or below; see `text` */
	/* From here on `target` is a path inside the new root, "new" in the staging folder; in the steps made ahead, inside the
	 * staging folder itself. */
	PLAN_MOVE,   /* what was made ahead at `target`, to the same place in the new root */
	PLAN_ATTACH, /* `mount` at `target`; made when missing */
	PLAN_TMPFS,  /* `size` bytes, `mode`; of root inside */
	PLAN_OWNER,  /* `target` belongs to `owner` and `group` */
	PLAN_DEVICE, /* bind of the host's character device of that path, checked to be `device` */
	PLAN_DEVPTS,
	PLAN_PROC,
	PLAN_SYMLINK, /* `target` -> `text` */
	PLAN_EMPTY,   /* a file loses its content; skipped when missing */
	PLAN_MASK,    /* nothing to see: empty folder, or /dev/null; skipped when missing */
	PLAN_FREEZE,  /* read-only from here on; skipped when missing */
};

struct plan_step {
	enum plan_op op;
	int mount; /* index into mounts, or -1 */
	const char *target;
	char text[256]; /* PLAN_OVERLAY: lowerdir; PLAN_SYMLINK: where to */
	char upper[32]; /* PLAN_OVERLAY: upperdir and workdir, "" when it is read-only */
	char work[32];
	uint64_t size;
	mode_t mode;
	uid_t owner;
	gid_t group;
	dev_t device;
};

struct plan {
	struct plan_mount mounts[PLAN_MAX_MOUNTS];
	size_t nmounts;
	struct plan_step steps[PLAN_MAX_STEPS];
	size_t nsteps;
};

/* What the plan must know about the sources. */
struct plan_facts {
	bool layer_root[SANDBOX_MAX_LAYERS]; /* the layer holds a root/ tree ... */
	bool layer_usr[SANDBOX_MAX_LAYERS];  /* ... a usr/ tree */
	bool top;			     /* a volume, else a tmpfs */
	bool idmap;
	bool dpkg; /* the base has a /var/lib/dpkg */
	/* Something is mounted below the base's /usr that cannot be left out: an overlay refuses that as a lower folder, so
	 * /usr is shown as it is. */
	bool usr_covered;
	bool usr_ahead; /* the base's /usr, and nothing but that, was made ahead */
};

/* The devices that are shown, ended by path NULL. */
extern const struct plan_device {
	const char *path;
	unsigned major, minor;
} plan_devices[];

/* The steps that are the same for every sandbox: /dev, /proc, /tmp and /run, in the staging folder; of the host they need its
 * devices. With `usr`, for a shell that has been given a base's /usr, also what most make of that. */
void plan_ahead(bool usr, struct plan *plan);
/* All others. They come after those. */
int plan_make(const struct sandbox_spec *spec, const struct plan_facts *facts, struct plan *plan, struct err *err);

#endif
