/* The head of a receive-pack request (gitprotocol-pack(5), "Reference Update Request"): commands, capabilities, push
 * options; and the report-status that answers it. Pure; fed by the unpack role, the report is written by control. */
#ifndef SPACED_GIT_RECEIVE_H
#define SPACED_GIT_RECEIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "spaced/git/pktline.h"

#define OID_ZERO "0000000000000000000000000000000000000000"
#define RECEIVE_MAX_OPTIONS 32
#define RECEIVE_MAX_OPTION_BYTES 1024

/* What we advertise. `quiet` is taken and means nothing, as in git: a client without a terminal always sends it, and the
 * lines of the deployment are meant for it too. */
#define RECEIVE_CAPABILITIES                                                                                           \
	"report-status report-status-v2 delete-refs quiet atomic ofs-delta side-band-64k push-options "                \
	"object-format=sha1 agent=spaced/" SPACED_VERSION

struct receive_command {
	char *name;
	char old_oid[41];
	char new_oid[41];
	bool forced;
	char *error; /* why it is refused; NULL: fine so far */
};

enum receive_state { RECEIVE_COMMANDS, RECEIVE_OPTIONS, RECEIVE_PACK /* what follows is the pack */ };

struct receive {
	uint32_t max_refs, max_ref_bytes;
	enum receive_state state;
	struct receive_command *commands;
	size_t ncommands;
	size_t nshallow;
	char *options[RECEIVE_MAX_OPTIONS];
	size_t noptions;
	bool report, side_band, atomic, push_options;
};

void receive_init(struct receive *r, uint32_t max_refs, uint32_t max_ref_bytes);
void receive_release(struct receive *r);
/* Takes one packet; 0, or -1 and a reason that ends the push. A command that is only wrong for itself (bad name) is
 * kept, with its error. */
int receive_packet(struct receive *r, const struct pkt *pkt, struct err *err);
/* True when some command brings objects: a pack follows. */
bool receive_wants_pack(const struct receive *r);
/* Refuses every command that has no error yet. */
void receive_fail_all(struct receive *r, const char *reason);

/* NULL when a push may create, move or delete this name; else why not (git-check-ref-format(1), only refs/heads/ and
 * refs/tags/, length). */
const char *receive_ref_error(struct str name, uint32_t max_bytes);
/* 40 lower-case hex digits. */
bool receive_is_oid(struct str s);

/* report-status: `unpack` is "ok" or a reason, then one line per ref. Appends packets, with the final flush. */
void receive_report_begin(struct buf *b, const char *unpack);
void receive_report_ref(struct buf *b, const char *name, const char *error);
void receive_report_end(struct buf *b);

#endif
