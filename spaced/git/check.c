/* See check.h. */
#include "spaced/git/check.h"

#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "base/buf.h"
#include "spaced/git/tree_rules.h"

#define GITMODULES_MAX (1U << 20)

struct object {
	git_oid id;
	git_object_t type;
};

/* A tree that was measured: how deep it goes, and its longest path. */
struct measured {
	git_oid id;
	uint32_t depth, path;
	UT_hash_handle hh;
};

struct check {
	git_odb *incoming, *all;
	const struct role_args *limits;
	struct object *objects; /* sorted by id */
	size_t n, cap;
	struct measured *trees;
	uint64_t inflated;
	struct err *err;
};

static int object_cmp(const void *a, const void *b)
{
	return git_oid_cmp(&((const struct object *)a)->id, &((const struct object *)b)->id);
}

static int collect(const git_oid *id, void *payload)
{
	struct check *c = payload;

	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 256;
		c->objects = xreallocarray(c->objects, c->cap, sizeof *c->objects);
	}
	c->objects[c->n++] = (struct object){*id, GIT_OBJECT_ANY};
	return 0;
}

static int bad_object(struct check *c, const git_oid *id, const char *why)
{
	return err_set(c->err, 0, "object %s: %s", git_oid_tostr_s(id), why);
}

/* Sizes of all objects, from their headers alone: nothing big is unpacked before its size is known. */
static int weigh(struct check *c)
{
	for (size_t i = 0; i < c->n; i++) {
		size_t size;
		if (git_odb_read_header(&size, &c->objects[i].type, c->incoming, &c->objects[i].id) < 0)
			return git_err(c->err, "read a new object");
		c->inflated += size;
		if (size > c->limits->object_bytes)
			return bad_object(c, &c->objects[i].id, "is too big");
		if (c->inflated > c->limits->inflated_bytes)
			return err_set(c->err, 0, "the push unpacks to more than %llu bytes",
				       (unsigned long long)c->limits->inflated_bytes);
	}
	return 0;
}

/* Kind of an object wherever it is; GIT_OBJECT_INVALID when it is missing. */
static git_object_t type_of(struct check *c, const git_oid *id)
{
	struct object key = {.id = *id};
	const struct object *o = c->n ? bsearch(&key, c->objects, c->n, sizeof key, object_cmp) : NULL;
	git_object_t type;
	size_t size;

	if (o)
		return o->type;
	return git_odb_read_header(&size, &type, c->all, id) < 0 ? GIT_OBJECT_INVALID : type;
}

static int need(struct check *c, const git_oid *from, const git_oid *id, git_object_t type)
{
	git_object_t have = type_of(c, id);
	char hex[GIT_OID_HEXSZ + 1];

	if (have == type || (have != GIT_OBJECT_INVALID && type == GIT_OBJECT_ANY))
		return 0;
	git_oid_tostr(hex, sizeof hex, id);
	return err_set(c->err, 0, "object %s names %s, which is %s", git_oid_tostr_s(from), hex,
		       have == GIT_OBJECT_INVALID ? "missing" : "of another kind");
}

static struct str bytes_of(git_odb_object *o)
{
	return (struct str){git_odb_object_data(o), git_odb_object_size(o)};
}

/* Takes "key value LF" off the front; false when it is not there. */
static bool take_header(struct str *s, const char *key, struct str *value)
{
	size_t k = strlen(key);
	const char *nl = s->n ? memchr(s->p, '\n', s->n) : NULL;

	if (!nl || (size_t)(nl - s->p) < k + 1 || memcmp(s->p, key, k) != 0 || s->p[k] != ' ')
		return false;
	*value = (struct str){s->p + k + 1, (size_t)(nl - s->p) - k - 1};
	*s = (struct str){nl + 1, s->n - (size_t)(nl + 1 - s->p)};
	return true;
}

static bool take_oid(struct str *s, const char *key, git_oid *id)
{
	struct str v;

	return take_header(s, key, &v) && receive_is_oid(v) && git_oid_fromstrn(id, v.p, v.n) == 0;
}

static int check_commit(struct check *c, const git_oid *id, struct str s)
{
	git_oid other;
	struct str v;

	if (!take_oid(&s, "tree", &other))
		return bad_object(c, id, "malformed commit");
	if (need(c, id, &other, GIT_OBJECT_TREE) < 0)
		return -1;
	while (take_oid(&s, "parent", &other))
		if (need(c, id, &other, GIT_OBJECT_COMMIT) < 0)
			return -1;
	if (!take_header(&s, "author", &v) || !take_header(&s, "committer", &v))
		return bad_object(c, id, "malformed commit");
	return 0;
}

static int check_tag(struct check *c, const git_oid *id, struct str s)
{
	git_oid target;
	struct str type, v;

	if (!take_oid(&s, "object", &target) || !take_header(&s, "type", &type) || !take_header(&s, "tag", &v))
		return bad_object(c, id, "malformed tag");
	char name[16] = "";
	memcpy(name, type.p, type.n < sizeof name - 1 ? type.n : sizeof name - 1);
	git_object_t t = git_object_string2type(name);
	return t == GIT_OBJECT_INVALID ? bad_object(c, id, "malformed tag") : need(c, id, &target, t);
}

static int check_gitmodules(struct check *c, const git_oid *id)
{
	git_odb_object *o;
	git_object_t type;
	size_t size;

	if (git_odb_read_header(&size, &type, c->all, id) < 0 || type != GIT_OBJECT_BLOB)
		return bad_object(c, id, ".gitmodules is not a file");
	if (size > GITMODULES_MAX)
		return bad_object(c, id, ".gitmodules is too big");
	if (git_odb_read(&o, c->all, id) < 0)
		return git_err(c->err, "read .gitmodules");
	const char *why = gitmodules_error(bytes_of(o));
	git_odb_object_free(o);
	return why ? bad_object(c, id, why) : 0;
}

static int measure(struct check *c, const git_oid *id, uint32_t level, uint32_t *depth, uint32_t *path);

static int measure_entries(struct check *c, struct str raw, uint32_t level, struct measured *m)
{
	struct tree_entry e;

	m->depth = 1;
	m->path = 0;
	while (tree_next(&raw, &e) == 1) {
		uint32_t depth = 0, path = 0;
		git_oid sub;
		git_oid_fromraw(&sub, e.oid);
		if (e.mode == TREE_MODE_DIR && measure(c, &sub, level + 1, &depth, &path) < 0)
			return -1;
		if (depth + 1 > m->depth)
			m->depth = depth + 1;
		uint64_t length = (uint64_t)e.name.n + (path ? path + 1 : 0);
		if (length > c->limits->path_bytes)
			return err_set(c->err, 0, "a path is longer than %llu bytes",
				       (unsigned long long)c->limits->path_bytes);
		if (length > m->path)
			m->path = (uint32_t)length;
	}
	return 0;
}

/* Each distinct tree is read once, so ten trees that stand for 10^10 files cost ten reads. */
static int measure(struct check *c, const git_oid *id, uint32_t level, uint32_t *depth, uint32_t *path)
{
	struct measured *m;
	git_odb_object *o;

	if (level > c->limits->tree_depth)
		return err_set(c->err, 0, "folders are nested deeper than %llu",
			       (unsigned long long)c->limits->tree_depth);
	HASH_FIND(hh, c->trees, id, sizeof *id, m);
	if (!m) {
		if (git_odb_read(&o, c->all, id) < 0)
			return git_err(c->err, "read a tree");
		m = xcalloc(1, sizeof *m);
		m->id = *id;
		int r = measure_entries(c, bytes_of(o), level, m);
		git_odb_object_free(o);
		if (r < 0) {
			free(m);
			return -1;
		}
		HASH_ADD(hh, c->trees, id, sizeof m->id, m);
	}
	*depth = m->depth;
	*path = m->path;
	if (level + m->depth - 1 > c->limits->tree_depth)
		return err_set(c->err, 0, "folders are nested deeper than %llu",
			       (unsigned long long)c->limits->tree_depth);
	return 0;
}

static int check_tree(struct check *c, const git_oid *id, struct str raw)
{
	const char *why = tree_error(raw);
	struct tree_entry e;
	git_oid sub;

	if (why)
		return bad_object(c, id, why);
	while (tree_next(&raw, &e) == 1) {
		if (e.mode == TREE_MODE_GITLINK) /* a commit of another repository: never here */
			continue;
		git_oid_fromraw(&sub, e.oid);
		if (need(c, id, &sub, e.mode == TREE_MODE_DIR ? GIT_OBJECT_TREE : GIT_OBJECT_BLOB) < 0)
			return -1;
		if (tree_is_gitmodules(e.name) && check_gitmodules(c, &sub) < 0)
			return -1;
	}
	return 0;
}

static int check_object(struct check *c, const struct object *o)
{
	git_odb_object *data;
	int r;

	if (o->type == GIT_OBJECT_BLOB)
		return 0;
	if (git_odb_read(&data, c->incoming, &o->id) < 0)
		return git_err(c->err, "read a new object");
	switch (o->type) {
	case GIT_OBJECT_COMMIT:
		r = check_commit(c, &o->id, bytes_of(data));
		break;
	case GIT_OBJECT_TREE:
		r = check_tree(c, &o->id, bytes_of(data));
		break;
	case GIT_OBJECT_TAG:
		r = check_tag(c, &o->id, bytes_of(data));
		break;
	default:
		r = bad_object(c, &o->id, "unknown kind");
	}
	git_odb_object_free(data);
	return r;
}

static int check_all(struct check *c)
{
	uint32_t depth, path;

	if (weigh(c) < 0)
		return -1;
	for (size_t i = 0; i < c->n; i++)
		if (check_object(c, &c->objects[i]) < 0)
			return -1;
	/* Only now is every tree known to be well-formed and whole. */
	for (size_t i = 0; i < c->n; i++)
		if (c->objects[i].type == GIT_OBJECT_TREE && measure(c, &c->objects[i].id, 1, &depth, &path) < 0)
			return -1;
	return 0;
}

int check_objects(git_odb *incoming, git_odb *all, const struct role_args *limits, struct err *err)
{
	struct check c = {.incoming = incoming, .all = all, .limits = limits, .err = err};
	struct measured *m, *next;
	int r = git_odb_foreach(incoming, collect, &c);

	if (r < 0) {
		r = git_err(err, "list the new objects");
	} else {
		qsort(c.objects, c.n, sizeof *c.objects, object_cmp);
		r = check_all(&c);
	}
	HASH_ITER(hh, c.trees, m, next)
	{
		HASH_DEL(c.trees, m);
		free(m);
	}
	free(c.objects);
	return r;
}

static const char *tip_error(git_odb *all, const struct receive_command *c, git_oid *id)
{
	git_object_t type;
	size_t size;

	if (git_oid_fromstr(id, c->new_oid) < 0 || git_odb_read_header(&size, &type, all, id) < 0)
		return "the pushed object is missing";
	if (!strncmp(c->name, "refs/heads/", 11) && type != GIT_OBJECT_COMMIT)
		return "a branch must name a commit";
	return NULL;
}

void check_tips(git_repository *repo, git_odb *all, struct receive *r)
{
	for (size_t i = 0; i < r->ncommands; i++) {
		struct receive_command *c = &r->commands[i];
		git_oid new, old;
		if (c->error || !strcmp(c->new_oid, OID_ZERO))
			continue;
		const char *why = tip_error(all, c, &new);
		if (why)
			c->error = xstrdup(why);
		if (why || strncmp(c->name, "refs/heads/", 11) != 0 || !strcmp(c->old_oid, OID_ZERO))
			continue;
		if (git_oid_fromstr(&old, c->old_oid) == 0 && !git_oid_equal(&old, &new))
			c->forced = git_graph_descendant_of(repo, &new, &old) != 1;
	}
}
