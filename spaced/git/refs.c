/* See refs.h: the table and its decisions, pure. What touches the disk is in refs_disk.c. */
#include "spaced/git/refs.h"

#include <stdlib.h>
#include <string.h>

void ref_table_release(struct ref_table *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->refs[i].name);
	free(t->refs);
	*t = (struct ref_table){0};
}

/* Index of the first ref that is not before `name`. */
static size_t lower_bound(const struct ref_table *t, const char *name)
{
	size_t lo = 0, hi = t->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (strcmp(t->refs[mid].name, name) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct ref *ref_table_find(const struct ref_table *t, const char *name)
{
	size_t i = lower_bound(t, name);

	return i < t->n && !strcmp(t->refs[i].name, name) ? &t->refs[i] : NULL;
}

struct ref *ref_table_put(struct ref_table *t, const char *name, const char *oid)
{
	size_t i = lower_bound(t, name);

	if (i == t->n || strcmp(t->refs[i].name, name) != 0) {
		if (t->n == t->cap) {
			t->cap = t->cap ? 2 * t->cap : 16;
			t->refs = xreallocarray(t->refs, t->cap, sizeof *t->refs);
		}
		memmove(t->refs + i + 1, t->refs + i, (t->n - i) * sizeof *t->refs);
		t->n++;
		t->refs[i] = (struct ref){.name = xstrdup(name)};
	}
	memcpy(t->refs[i].oid, oid, 41);
	t->refs[i].peeled[0] = '\0';
	return &t->refs[i];
}

static void ref_table_drop(struct ref_table *t, const char *name)
{
	size_t i = lower_bound(t, name);

	free(t->refs[i].name);
	memmove(t->refs + i, t->refs + i + 1, (t->n - i - 1) * sizeof *t->refs);
	t->n--;
}

/* "oid SP name", or "^oid" behind the tag it belongs to. */
static int parse_line(struct ref_table *t, struct ref **last, struct str line)
{
	if (line.n == 41 && line.p[0] == '^') {
		if (!*last || !receive_is_oid((struct str){line.p + 1, 40}))
			return -1;
		memcpy((*last)->peeled, line.p + 1, 40);
		(*last)->peeled[40] = '\0';
		return 0;
	}
	if (line.n < 42 || line.p[40] != ' ' || !receive_is_oid((struct str){line.p, 40}) ||
	    memchr(line.p, '\0', line.n))
		return -1;
	char oid[41] = "";
	memcpy(oid, line.p, 40);
	char *name = xstrndup(line.p + 41, line.n - 41);
	*last = ref_table_put(t, name, oid);
	free(name);
	return 0;
}

int ref_table_parse(struct ref_table *t, struct str text, struct err *err)
{
	struct ref *last = NULL;

	while (text.n) {
		const char *nl = memchr(text.p, '\n', text.n);
		size_t n = nl ? (size_t)(nl - text.p) : text.n;
		if (n && text.p[0] != '#' && parse_line(t, &last, (struct str){text.p, n}) < 0)
			return err_set(err, 0, "packed-refs is malformed");
		n += nl ? 1 : 0;
		text = (struct str){text.p + n, text.n - n};
	}
	return 0;
}

void ref_table_print(const struct ref_table *t, struct buf *out)
{
	buf_adds(out, "# pack-refs with: peeled fully-peeled sorted \n");
	for (size_t i = 0; i < t->n; i++) {
		buf_addf(out, "%s %s\n", t->refs[i].oid, t->refs[i].name);
		if (t->refs[i].peeled[0])
			buf_addf(out, "^%s\n", t->refs[i].peeled);
	}
}

/* "a" and "a/b" cannot both be: on disk and in every clone one is a file, the other a folder. */
static bool df_conflict(const struct ref_table *t, const char *name)
{
	char *path = xasprintf("%s/", name);
	size_t n = strlen(path), i = lower_bound(t, path);
	bool conflict = i < t->n && !strncmp(t->refs[i].name, path, n);

	for (size_t k = n - 1; k > 0 && !conflict; k--) {
		if (path[k] != '/')
			continue;
		path[k] = '\0';
		conflict = k < n - 1 && ref_table_find(t, path);
	}
	free(path);
	return conflict;
}

static const char *apply_one(struct ref_table *t, const struct receive_command *c, const struct ref_rules *rules)
{
	struct ref *have = ref_table_find(t, c->name);
	const char *now = have ? have->oid : OID_ZERO;
	bool removes = !strcmp(c->new_oid, OID_ZERO);

	if (strcmp(c->old_oid, now) != 0)
		return have ? "stale info: the ref has moved meanwhile, fetch first"
			    : "stale info: there is no such ref";
	if (removes) {
		if (!strcmp(c->name, rules->default_ref))
			return "the default branch cannot be deleted";
		ref_table_drop(t, c->name);
		return NULL;
	}
	if (!have && t->n >= rules->max_refs)
		return "the repository has too many refs";
	if (!have && df_conflict(t, c->name))
		return "directory/file conflict with another ref";
	struct ref *ref = ref_table_put(t, c->name, c->new_oid);
	if (rules->peel)
		rules->peel(rules->ctx, c->new_oid, ref->peeled);
	return NULL;
}

bool ref_table_apply(struct ref_table *t, struct receive *r, const struct ref_rules *rules)
{
	bool changed = false, failed = false;

	/* Deletes first: `git push :a a/b` replaces a file by a folder. */
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < r->ncommands; i++) {
			struct receive_command *c = &r->commands[i];
			if ((pass == 0) != !strcmp(c->new_oid, OID_ZERO))
				continue;
			const char *why = c->error ? NULL : apply_one(t, c, rules);
			if (why)
				c->error = xstrdup(why);
			failed |= c->error != NULL;
			changed |= c->error == NULL;
		}
	}
	if (!rules->atomic || !failed)
		return changed;
	receive_fail_all(r, "atomic push: another ref was refused");
	return false;
}
