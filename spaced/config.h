/* Configuration of the daemon: command line over file over defaults. One table (config.c) names every option once:
 * `--memory 512M` on the command line is `memory = 512M` in the file. */
#ifndef SPACED_CONFIG_H
#define SPACED_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/spec.h"

struct config {
	char *state;  /* absolute path of the state folder */
	char *listen; /* "ADDR:PORT" of the public port */
	char *domain; /* apex host name, lower case, without port */
	char *
	    public_url; /* "http://localhost:7000": how people reach the apex; made from domain and port when not set */
	uint16_t port;	/* from `listen` */
	uint32_t proxies; /* proxy processes, at most CONFIG_PROXIES_MAX; 0: one per CPU, up to 4 */
	char *user;	  /* account of control; "-proxy" and "-static" are appended for the other roles */
	char *log_level;
	/* of visitors; the connections and the requests in flight count for each proxy, the rates for all of them */
	uint32_t client_connections, client_rate, space_requests, space_rate;
	char *trusted_proxies;	    /* ADDR or ADDR/PREFIX, checked: proxy/trusted.h */
	uint64_t access_log_bytes;  /* of both files; 0: none is kept */
	uint32_t access_log_sample; /* of answers below 400 only one in so many */

	/* a Space's limits (running app) */
	uint64_t memory;
	uint32_t cpu_milli;
	uint32_t pids;
	uint64_t disk;	   /* writable top of an instance, bytes */
	uint64_t data_max; /* of a Space's persistent volume */
	uint64_t io;	   /* bytes per second of its disks, read and written each; 0: unlimited */
	uint32_t
	    startup_timeout_s; /* README's startup_duration_timeout may lower or raise it up to startup_timeout_max_s */
	uint32_t startup_timeout_max_s;
	uint32_t drain_timeout_s; /* how long an instance that was replaced may finish what is in flight */
	uint64_t log_bytes;
	enum sandbox_egress egress;
	char **egress_list; /* NULL-ended, checked: sandbox/egress_list.h */
	uint64_t bandwidth; /* bytes per second to the Internet, and from it; 0: no limit */
	/* a build's limits */
	uint64_t build_memory;
	uint32_t build_cpu_milli;
	uint32_t build_pids;
	uint64_t build_disk;
	uint64_t build_io;
	uint32_t build_timeout_s;
	enum sandbox_egress build_egress; /* of the steps that fetch; the others have none */
	char **build_egress_list;
	uint32_t builds; /* at the same time */
	uint32_t starts; /* of apps, the same */
	/* a push's limits */
	uint64_t push_pack_bytes;
	uint64_t push_inflated_bytes;
	uint64_t push_object_bytes;
	uint32_t push_objects;
	uint32_t push_refs;
	uint32_t push_ref_bytes;  /* length of a ref's name */
	uint32_t push_path_bytes; /* length of a path in a tree */
	uint32_t push_tree_depth;
	uint32_t push_timeout_s;
	uint64_t checkout_bytes; /* of a deployed tree */
	uint32_t checkout_files;
	/* per user */
	uint32_t spaces_per_user;
	uint32_t replicas_max; /* instances of one Space, each with an app's limits; at most ROUTE_ENDPOINTS_MAX */
	/* sleep (space/sleep.h) */
	uint32_t freeze_after_s, page_out_after_s, sleep_after_s; /* 0: never */
	uint64_t memory_reserve;
	uint32_t hold_timeout_s, hold_requests; /* at the proxies: proxy/proxy.h */
	uint32_t keep_releases;			/* per Space, for roll-back */
	bool owners_add_domains;		/* else only admins do */
	uint32_t id_base;			/* first host uid of the ranges given to Spaces */
	bool check;				/* --check: no option of the file */
};

/* Defaults, then `argv` (which may name --config FILE, read first). --help and --version print and exit 0; a bad option
 * says which and why. */
int config_load(struct config *c, int argc, char **argv, struct err *err);
void config_release(struct config *c);
/* The effective configuration as the file would say it, one option a line with its comment (`spaced --print-config`). */
void config_print(const struct config *c, struct buf *out);
/* What a changed option needs to come into force. */
enum config_change { CONFIG_AT_RELOAD, CONFIG_AT_UPGRADE, CONFIG_AT_START };
/* Names, with commas, of the options of that kind in which the two differ. */
void config_changes(const struct config *a, const struct config *b, enum config_change change, struct buf *names);
/* Exchanges the values that may change while the daemon runs (CONFIG_AT_RELOAD); `fresh` has the old ones afterwards. */
void config_adopt(struct config *c, struct config *fresh);
/* "512M", "1.5G" -> bytes; "90s", "30m", "1h" or a plain number -> seconds; "1.5" -> 1500. 0 or -EINVAL. */
int config_parse_size(const char *s, uint64_t *bytes);
int config_parse_duration(const char *s, uint32_t *seconds);
int config_parse_egress(const char *s, enum sandbox_egress *out); /* "none", "internet", "list" */
const char *config_egress_name(enum sandbox_egress e);
int config_parse_cpus(const char *s, uint32_t *milli);
int config_parse_count(const char *s, uint32_t *n); /* a whole number */
/* config_check.c, for config_load(): whether values that were read one by one may be what they are and fit together. Sets
 * `port`, and a `public_url` and `state` that are complete. */
int config_check(struct config *c, struct err *err);
#define CONFIG_PROXIES_MAX 16

/* Folders below the state folder. */
#define STATE_CONTROL "control" /* 0700 control's user: spaced.db, key */
#define STATE_REPOS "repos"	/* 0700 control's user: {space id}.git */
#define STATE_LOGS "logs"	/* 0700 control's user: build-{id}.log, run-{space id}-{generation}.log */
#define STATE_ACCESS "access"	/* 0700 control's user: access.log, access.log.1 */
#define STATE_SITES                                                                                                    \
	"sites"		/* 0750 control's user, group of the static role: {release id}/site.json, {release id}/files/ */
#define STATE_RUN "run" /* 0711: http.sock, static.sock for the proxies (0660, their group) */
#define STATE_SOCKET "control.sock" /* for spacectl, directly in the state folder; caller checked by SO_PEERCRED */

#endif
