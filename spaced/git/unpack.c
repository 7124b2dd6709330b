/* The unpack role: one confined process per push. Reads a receive-pack request on descriptor 0, indexes the pack in
 * quarantine, checks every object, moves it in and moves the refs; the result goes to control as frames on descriptor 3.
 * Started by push.c. */
#include <errno.h>
#include <fcntl.h>
#include <git2.h>
#include <git2/sys/odb_backend.h>
#include <git2/sys/repository.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/confine.h"
#include "base/frame.h"
#include "base/io.h"
#include "base/log.h"
#include "spaced/git/check.h"
#include "spaced/git/git.h"
#include "spaced/git/inflate.h"
#include "spaced/git/pack_scan.h"
#include "spaced/git/quarantine.h"
#include "spaced/git/refs.h"
#include "spaced/git/roles.h"

#define DELTA_RESULT_MAX (512ULL << 20) /* git makes no deltas of files beyond core.bigFileThreshold */
#define READ_SIZE (256U << 10)

struct unpack {
	struct role_args args;
	char path[4200]; /* of the repository */
	int repo_fd;
	struct receive receive;
	struct buf head; /* what has not been parsed of the commands; then the first bytes of the pack */
	struct pack_scan scan;
	struct quarantine quarantine;
	git_odb *store;
	git_indexer *indexer;
	git_indexer_progress progress;
	bool told_head, told_refs;
};

/* False: control is gone. */
static bool tell(uint32_t type, const struct buf *b)
{
	return frame_send(ROLE_RESULT_FD, type, 0, b->data, b->len, NULL, 0) >= 0;
}

static void tell_head(struct unpack *u)
{
	cleanup_buf struct buf b = BUF_INIT;

	if (u->told_head)
		return;
	u->told_head = true;
	put_u8(&b, u->receive.report);
	put_u8(&b, u->receive.side_band);
	put_u32(&b, (uint32_t)u->receive.noptions);
	for (size_t i = 0; i < u->receive.noptions; i++)
		put_str(&b, u->receive.options[i]);
	tell(UNPACK_HEAD, &b);
}

static bool tell_refs(struct unpack *u)
{
	bool heard = true;

	for (size_t i = 0; i < u->receive.ncommands && heard && !u->told_refs; i++) {
		const struct receive_command *c = &u->receive.commands[i];
		cleanup_buf struct buf b = BUF_INIT;
		put_str(&b, c->name);
		put_str(&b, c->old_oid);
		put_str(&b, c->new_oid);
		put_u8(&b, c->forced);
		put_str(&b, c->error);
		heard = tell(UNPACK_REF, &b);
	}
	u->told_refs = true;
	return heard;
}

static void tell_end(const char *status)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, status);
	tell(UNPACK_END, &b);
}

/* The pack's own bytes, scanned before libgit2 gets them. */
static int start_indexer(struct unpack *u, struct err *err)
{
	cleanup_free char *dir = NULL;

	if (quarantine_open(&u->quarantine, u->repo_fd, err) < 0)
		return -1;
	dir = xasprintf("%s/%s", u->path, u->quarantine.name);
	if (git_indexer_new(&u->indexer, dir, 0, u->store, NULL) < 0 /* no `verify`: it refuses gitlinks */)
		return git_err(err, "index the pack");
	return 0;
}

static int index_bytes(struct unpack *u, const void *p, size_t n, struct err *err)
{
	if (n && git_indexer_append(u->indexer, p, n, &u->progress) < 0)
		return git_err(err, "index the pack");
	return 0;
}

static int take_pack(struct unpack *u, const void *p, size_t n, struct err *err)
{
	if (!receive_wants_pack(&u->receive))
		return n ? err_set(err, 0, "malformed push: bytes behind the commands") : 0;
	if (pack_scan_feed(&u->scan, p, n, err) < 0)
		return -1;
	if (u->indexer)
		return index_bytes(u, p, n, err);
	buf_add(&u->head, p, n);
	/* A pack of no objects (only refs move) is not indexed at all. */
	if (u->scan.state == SCAN_HEAD || u->scan.objects == 0)
		return 0;
	if (start_indexer(u, err) < 0 || index_bytes(u, u->head.data, u->head.len, err) < 0)
		return -1;
	buf_release(&u->head);
	u->head = BUF_INIT;
	return 0;
}

/* Takes bytes of the (inflated) request body. */
static int take_body(void *ctx, const void *p, size_t n, struct err *err)
{
	struct unpack *u = ctx;

	if (u->receive.state == RECEIVE_PACK)
		return take_pack(u, p, n, err);
	buf_add(&u->head, p, n);
	while (u->receive.state != RECEIVE_PACK) {
		struct pkt pkt;
		ssize_t k = pkt_parse(u->head.data, u->head.len, &pkt);
		if (k < 0)
			return err_set(err, 0, "malformed push: bad packet length");
		if (k == 0)
			return 0;
		if (receive_packet(&u->receive, &pkt, err) < 0)
			return -1;
		buf_consume(&u->head, (size_t)k);
	}
	tell_head(u);
	cleanup_buf struct buf rest = u->head;
	u->head = BUF_INIT;
	return rest.len ? take_pack(u, rest.data, rest.len, err) : 0;
}

static int read_body(struct unpack *u, struct err *err)
{
	cleanup_free char *room = xmalloc(READ_SIZE);
	const struct role_args *a = &u->args;
	struct inflate gz = {.open = false};
	int r = 0;

	if (a->gzip && inflate_init(&gz, a->pack_bytes + a->refs * (a->ref_bytes + 200) + (1U << 20), err) < 0)
		return -1;
	while (r == 0) {
		ssize_t n = read(0, room, READ_SIZE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = err_set(err, errno, "read the push");
		if (n <= 0)
			break;
		r = a->gzip ? inflate_feed(&gz, room, (size_t)n, take_body, u, err)
			    : take_body(u, room, (size_t)n, err);
	}
	inflate_release(&gz);
	if (r < 0)
		return -1;
	if (u->receive.state != RECEIVE_PACK || (receive_wants_pack(&u->receive) && u->scan.state != SCAN_DONE))
		return err_set(err, 0, "the push ended too early");
	return 0;
}

static int open_store(struct unpack *u, struct err *err)
{
	cleanup_free char *objects = xasprintf("%s/objects", u->path);

	return git_odb_open(&u->store, objects) < 0 ? git_err(err, "open the object store") : 0;
}

/* Adds the quarantined pack to an object database. */
static int add_pack(git_odb *odb, const char *idx, struct err *err)
{
	git_odb_backend *b;

	if (git_odb_backend_one_pack(&b, idx) < 0 || git_odb_add_backend(odb, b, 10) < 0)
		return git_err(err, "open the new pack");
	return 0;
}

static int check_pack(struct unpack *u, struct err *err)
{
	git_odb *incoming = NULL;
	int r = -1;

	if (git_indexer_commit(u->indexer, &u->progress) < 0)
		return git_err(err, "index the pack");
	cleanup_free char *idx =
	    xasprintf("%s/%s/pack-%s.idx", u->path, u->quarantine.name, git_indexer_name(u->indexer));
	if (git_odb_new(&incoming) < 0)
		return git_err(err, "open the new pack");
	if (add_pack(incoming, idx, err) == 0 && add_pack(u->store, idx, err) == 0)
		r = check_objects(incoming, u->store, &u->args, err);
	git_odb_free(incoming);
	return r;
}

static void peel_tag(void *ctx, const char *hex, char peeled[41])
{
	git_repository *repo = ctx;
	git_object *o = NULL;
	git_tag *tag;
	git_oid id;

	peeled[0] = '\0';
	if (git_oid_fromstr(&id, hex) < 0 || git_tag_lookup(&tag, repo, &id) < 0)
		return;
	if (git_tag_peel(&o, tag) == 0)
		git_oid_tostr(peeled, 41, git_object_id(o));
	git_object_free(o);
	git_tag_free(tag);
}

/* Under the repository's lock: compare, move the pack in, move the refs. */
static int commit_push(struct unpack *u, git_repository *repo, struct err *err)
{
	cleanup_ref_table struct ref_table table = {0};
	char head[4096];
	cleanup_close int lock = refs_lock(u->repo_fd, err);

	if (lock < 0 || refs_head(u->repo_fd, head, sizeof head, err) < 0 || refs_read(u->repo_fd, &table, err) < 0)
		return -1;
	struct ref_rules rules = {.default_ref = head,
				  .max_refs = 20 * u->args.refs,
				  .atomic = u->receive.atomic,
				  .peel = peel_tag,
				  .ctx = repo};
	bool changed = ref_table_apply(&table, &u->receive, &rules);
	/* Told before they move: if we are killed in between, control looks whether they did. A control that was killed
	 * itself hears nothing, and its successor compares refs with builds only as it starts: too late to move them. */
	if (!tell_refs(u))
		return err_set(err, 0, "the server ended during the push");
	if (changed && u->indexer &&
	    quarantine_accept(&u->quarantine, u->repo_fd, lock, git_indexer_name(u->indexer), err) < 0)
		return -1;
	return changed ? refs_write(u->repo_fd, lock, &table, &u->receive, err) : 0;
}

static int handle_push(struct unpack *u, struct err *err)
{
	git_repository *repo = NULL;

	if (open_store(u, err) < 0 || read_body(u, err) < 0)
		return -1;
	if (u->indexer && check_pack(u, err) < 0)
		return -1;
	if (git_repository_wrap_odb(&repo, u->store) < 0)
		return git_err(err, "open the repository");
	check_tips(repo, u->store, &u->receive);
	int r = commit_push(u, repo, err);
	git_repository_free(repo);
	return r;
}

static int confine_self(struct unpack *u, struct err *err)
{
	const struct role_args *a = &u->args;
	uint64_t delta = a->object_bytes < DELTA_RESULT_MAX ? a->object_bytes : DELTA_RESULT_MAX;
	uint64_t memory = (1ULL << 30) + 3 * delta + 500 * a->objects;
	struct confine_path paths[] = {{.path = u->path, .write = true}, {.path = NULL}};

	u->repo_fd = open(u->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (u->repo_fd < 0)
		return err_set(err, errno, "open the repository");
	git_libgit2_opts(GIT_OPT_SET_PACK_MAX_OBJECTS, (size_t)a->objects);
#ifdef HAVE_GIT_PACK_MAX_OBJECT_SIZE /* an older libgit2 meets the memory limit below instead */
	git_libgit2_opts(GIT_OPT_SET_PACK_MAX_OBJECT_SIZE, (size_t)delta);
#endif
	if (role_limit(memory, a->timeout_s, 2 * a->pack_bytes + (1ULL << 30), err) < 0)
		return -1;
	return confine_files(paths, err) < 0 || confine_syscalls(PROMISE_FILES, err) < 0 ? -1 : 0;
}

int git_unpack_main(int argc, char **argv)
{
	struct unpack u = {.repo_fd = -1, .quarantine = QUARANTINE_INIT};
	struct err err = ERR_INIT;

	log_init("unpack", LOG_LEVEL_INFO);
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	git_lib_init();
	if (role_args_parse(&u.args, argc, argv, &err) < 0) {
		log_error("%s", err.msg);
		return 2;
	}
	snprintf(u.path, sizeof u.path, "%s/%s", u.args.repos, u.args.repo);
	receive_init(&u.receive, (uint32_t)u.args.refs, (uint32_t)u.args.ref_bytes);
	pack_scan_init(&u.scan, &(struct pack_limits){u.args.pack_bytes, u.args.inflated_bytes, u.args.object_bytes,
						      (uint32_t)u.args.objects});
	int r = confine_self(&u, &err);
	if (r == 0)
		r = handle_push(&u, &err);
	if (r < 0) {
		receive_fail_all(&u.receive, "unpacker error");
		tell_head(&u);
		tell_refs(&u);
	}
	tell_end(r < 0 ? err.msg : "ok");
	git_indexer_free(u.indexer);
	quarantine_remove(&u.quarantine, u.repo_fd);
	return 0; /* the memory goes with the process */
}
