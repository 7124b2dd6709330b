/* What the files of spacectl share: the command line, the HTTP client over the admin socket, and printing. */
#ifndef SPACED_CLI_CLI_H
#define SPACED_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* Exit statuses. */
#define CLI_OK 0
#define CLI_FAILED 1
#define CLI_USAGE 2

#define CLI_WORDS 4

struct cli {
	const char *state; /* folder of the daemon */
	bool json;
	/* words and options behind the verb */
	const char *word[CLI_WORDS];
	size_t nwords;
	bool admin, factory, build, follow, yes, tty;
	const char *label, *tail, *limit, *folder;
	const char *suite, *packages, *mirror, *variant;
	char **command; /* what follows `--` of a verb that takes a command, NULL-ended; NULL without */
};

/* One row of the table of verbs; each file of a group exports its rows, ended by .run == NULL. */
struct verb {
	const char *group, *name; /* name NULL: the group is the verb ("status") */
	const char *words;	  /* "OWNER/NAME"; for the usage line */
	size_t min, max;	  /* how many words */
	const char *options; /* allowed ones, by the `name` in main.c, separated by spaces; "command": see struct cli */
	const char *help;
	int (*run)(struct cli *c);
};
extern const struct verb user_verbs[], token_verbs[], space_verbs[], build_verbs[], exec_verbs[], base_verbs[],
    domain_verbs[], access_verbs[], host_verbs[];

/* ---- client.c: errors are printed here; 0 or CLI_FAILED ---- */
int client_call(struct cli *c, const char *method, const char *path, json_t *body, json_t **out); /* takes body */
/* Follows Link headers and joins the arrays. */
int client_list(struct cli *c, const char *path, json_t **out);
/* The same, printed: columns as in print_table. */
int client_show_list(struct cli *c, const char *path, const char *const *columns, size_t n, const char *empty);
/* Hands a plain-text answer to `sink` as it comes. */
int client_stream(struct cli *c, const char *path, void (*sink)(const char *p, size_t n));
/* The same of a log that is followed: where the daemon makes way for another one it goes on with that, without a gap. `path`
 * has a query. */
int client_follow(struct cli *c, const char *path, void (*sink)(const char *p, size_t n));
/* The daemon's status without printing an error; NULL when it does not run (`why` says it). */
json_t *client_status(struct cli *c, struct buf *why);
/* A socket that is connected to the daemon; -1 with a message. */
int client_connect(struct cli *c);
/* "/api/spaces/OWNER/NAME" + rest for a word; NULL with a message when it is not OWNER/NAME. malloc'd. */
char *client_space_path(const char *word, const char *rest);
/* A word as one path segment, percent-encoded; malloc'd. */
char *client_segment(const char *word);

/* ---- print.c ---- */
void print_json(const json_t *j);
void print_json_line(const json_t *j);
/* An aligned table: `columns` are "TITLE=key" or "TITLE=key.key", with ":bytes" behind when they are;
 * dates are shown in local time, null as "-". */
void print_table(json_t *rows, const char *const *columns, size_t n, const char *empty);
/* "key  value" lines of the same columns for one object; those that are null are left out. */
void print_fields(json_t *object, const char *const *columns, size_t n);
/* For a terminal: no control sequence of an app's output gets there, but colours do. */
void print_harmless(const char *p, size_t n);
struct harmless {
	enum { HARMLESS_TEXT, HARMLESS_LEAD, HARMLESS_ESCAPED, HARMLESS_SEQUENCE } state;
	char held[32]; /* of a sequence */
	size_t nheld;
};
#define HARMLESS_MORE 35
/* The same, of `n` bytes into `out`, which has room for n + HARMLESS_MORE. Returns how many. */
size_t make_harmless(struct harmless *h, const char *p, size_t n, char *out);
int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* "spacectl: ..."; returns CLI_FAILED */

/* ---- relay.c ---- */
struct relay {
	int control; /* frame socket to the daemon: sandbox/exec.h */
	int in, out,
	    err; /* the command's, taken over; with a terminal all is in `in`, the master, and the others are -1 */
};
/* Carries bytes between our descriptors and the command's, and signals, until it has ended or the daemon is gone. Returns
 * the exit status; the terminal is as it was before. */
int relay_run(struct relay *r);

#endif
