/* What the files of the parent share: parent.c (its life), children.c (the roles), upgrade.c (reload, and another program in
 * the same process). */
#ifndef SPACED_ROLE_PARENT_INT_H
#define SPACED_ROLE_PARENT_INT_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "spaced/role/handed.h"
#include "spaced/role/role.h"

#define MAX_LEAVING 40
#define HANDED_RATES "rates.1" /* the number is that of their layout (proxy/rate.c) */
#define STOP_MS 15000	       /* for a role to end once its work is done */
/* At an end, for requests in flight, pushes being received, WebSockets and streams: nobody else serves visitors meanwhile. */
#define STOP_DRAIN_MS 10000

enum role { ROLE_SPAWNER, ROLE_CONTROL, ROLE_STATIC, ROLE_PROXY };
#define ROLES 4

struct child {
	enum role role;
	pid_t pid;	       /* 0: not running */
	int link;	       /* our end of its channel, -1 */
	uint64_t started, due; /* ms; when it may be started again */
	uint32_t delay;
	bool ready;    /* a proxy: it accepts */
	bool mute;     /* its channel has ended: nothing more is read */
	bool retiring; /* it was asked to end, and another one follows */
	bool replace;  /* a proxy that does not understand control, or is not understood: another one takes its place */
	uint64_t kill_at; /* if it has not ended by itself, when not 0 */
};

struct parent {
	struct config *config; /* in force; its state folder is where the roles see it */
	struct config given;   /* as it was read at the start: what a changed file is compared with */
	int argc;
	char **argv;
	char *program; /* path of what runs here, where the next one will lie */
	struct accounts accounts;
	int lock, config_fd, rates_fd, signals;
	int public_listener, http_listener, admin_listener, static_listener;
	struct child children[3 + CONFIG_PROXIES_MAX];
	size_t nchildren;
	struct child
	    leaving[MAX_LEAVING]; /* from before an upgrade, or replaced: others have their place; pid 0: free */
	bool replacing;		  /* the new proxies do not accept yet, so the leaving ones do */
	struct {
		pid_t pid; /* of the new program that looks whether it could start; 0: none */
		int out;
		uint64_t until;
		uint32_t asked_by; /* frame id of control's LINK_UPGRADE, 0: a signal */
		bool waits;	   /* for the end of the upgrade before; pid is 0 */
	} check;
	sigset_t inherited; /* signal mask to give back to children */
	bool given_up, ending;
	bool announced; /* the service manager has been told that visitors are served */
};

/* children.c */
extern const char *const role_names[ROLES];
struct child *child_of(struct parent *p, enum role role); /* the first of that role */
void children_init(struct parent *p);
/* Starts what is due, kills what is overdue. */
void children_tick(struct parent *p);
bool children_serve(const struct parent *p); /* every proxy of now accepts */
/* `ending`: none of them is started again. */
void children_reap(struct parent *p, bool ending);
/* Waits for a signal, at most `ms`, and takes what the roles say meanwhile. Returns the signal or 0. */
int children_wait(struct parent *p, int ms);
/* All that run, also those that leave; NULL behind the last. `*at` starts at 0. */
struct child *children_next(struct parent *p, size_t *at);
void child_link(struct child *c, int link);				   /* its channel, taken over */
void child_shutdown(struct child *c, enum link_shutdown how, uint32_t ms); /* control */
void child_retire(struct child *c, uint32_t ms);			   /* a proxy */
void child_send_fd(struct child *c, uint32_t type, int fd);
/* A place for one that leaves; NULL: there are too many. */
struct child *child_leaving(struct parent *p);
void control_answer(struct parent *p, uint32_t id, bool done, const char *text); /* LINK_ANSWER */

/* upgrade.c */
/* Reads the configuration again; what may change now does. `said` is a sentence about it. False: nothing was changed. */
bool reload(struct parent *p, struct buf *said);
/* Begins to put the program that is installed now in the place of this one, in three steps: a process of it looks whether it
 * could start (--check, with the sockets that it would get); if so this process becomes the new program, with the sockets and
 * the channels to the roles; that starts its own roles and sends the others away once its own serve. Until the new program
 * is there all goes on as it was. `asked_by`: see struct parent. */
void upgrade_begin(struct parent *p, uint32_t asked_by);
/* A child that is no role has ended: the check? */
void upgrade_reaped(struct parent *p, pid_t pid, int status);
void upgrade_tick(struct parent *p);
/* In the new program: takes the roles of the one before. True: there are some. */
bool upgrade_adopt(struct parent *p, struct handed *h);
int parent_config_file(const struct config *c, struct err *err); /* sealed, in memory; above HANDED_ABOVE */
/* The public socket of those that were handed over: the one named "public", or the only one. fd; -1: none. */
int parent_public_socket(struct handed *h);

#endif
