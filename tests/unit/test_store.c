/* The control store: uniqueness, refusals, and that what was said to be kept is there after a reopen. */
#include "store_rig.h"

static mode_t mode_of(const char *name)
{
	cleanup_free char *path = xasprintf("%s/%s", dir, name);
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 0777;
}

static struct user add_user(struct store *s, const char *name)
{
	struct user u;

	OK(store_user_add(s, name, false, &u, &err));
	return u;
}

static struct space add_space(struct store *s, const struct user *u, const char *name)
{
	struct space sp;

	OK(store_space_add(s, u->id, name, &sp, &err));
	return sp;
}

static void files_are_private(void **state)
{
	struct user u = add_user(*state, "alice");

	assert_int_equal(mode_of("spaced.db"), 0600);
	assert_int_equal(mode_of("spaced.db-wal"), 0600);
	assert_int_equal(mode_of("token.key"), 0600);
	user_release(&u);
}

static void users(void **state)
{
	struct store *s = *state;
	struct user u, *list;
	size_t n;

	OK(store_user_add(s, "Alice", true, &u, &err));
	assert_int_equal(strlen(u.id), 24);
	user_release(&u);
	FAILS(EEXIST, store_user_add(s, "alice", false, &u, &err));
	FAILS(ENOENT, store_user_by_name(s, "bob", &u, &err));
	*state = s = reopen(s);
	OK(store_user_by_name(s, "aLICE", &u, &err));
	assert_string_equal(u.name, "Alice");
	assert_true(u.admin);
	OK(store_user_list(s, &list, &n, &err));
	assert_int_equal(n, 1);
	user_release(&list[0]);
	free(list);
	OK(store_user_remove(s, u.id, &err));
	FAILS(ENOENT, store_user_remove(s, u.id, &err));
	user_release(&u);
}

static void tokens(void **state)
{
	struct store *s = *state;
	struct user u = add_user(s, "alice"), found;
	struct token t, *list;
	char secret[48], copy[48];
	struct buf raw = BUF_INIT;
	size_t n;

	OK(store_token_add(s, u.id, "laptop", secret, &t, &err));
	assert_int_equal(strlen(secret), 37);
	assert_memory_equal(secret, t.prefix, 7);
	OK(store_token_check(s, secret, &found, &err));
	user_release(&found);
	/* A session holds the token's id. */
	char token_id[STORE_ID];
	OK(store_token_id(s, secret, token_id, &err));
	OK(store_token_user(s, token_id, &found, &err));
	assert_string_equal(found.id, u.id);
	user_release(&found);

	memcpy(copy, secret, sizeof(copy));
	copy[36] = copy[36] == 'x' ? 'y' : 'x';
	FAILS(ENOENT, store_token_check(s, copy, &found, &err));
	FAILS(ENOENT, store_token_check(s, "", &found, &err));
	FAILS(ENOENT, store_token_check(s, "hf_", &found, &err));
	FAILS(ENOENT, store_token_check(s, "hf_' OR 1=1 --                           ", &found, &err));
	FAILS(ENOENT, store_token_add(s, "000000000000000000000000", "", copy, &t, &err));

	/* Neither the database nor its log holds the secret. */
	assert_int_equal(io_read_file(AT_FDCWD, db, 1 << 24, &raw), 0);
	assert_null(memmem(raw.data, raw.len, secret + 7, 30));
	buf_clear(&raw);
	cleanup_free char *wal = xasprintf("%s-wal", db);
	assert_int_equal(io_read_file(AT_FDCWD, wal, 1 << 24, &raw), 0);
	assert_null(memmem(raw.data, raw.len, secret + 7, 30));
	buf_release(&raw);

	*state = s = reopen(s);
	OK(store_token_check(s, secret, &found, &err));
	user_release(&found);
	OK(store_token_list(s, u.id, &list, &n, &err));
	assert_int_equal(n, 1);
	assert_string_equal(list[0].label, "laptop");
	assert_true(list[0].last_used > 0);
	OK(store_token_remove(s, list[0].id, &err));
	FAILS(ENOENT, store_token_check(s, secret, &found, &err));
	FAILS(ENOENT, store_token_id(s, secret, token_id, &err));
	FAILS(ENOENT, store_token_user(s, list[0].id, &found, &err));
	token_release(&list[0]);
	free(list);
	token_release(&t);
	user_release(&u);
}

static void token_key_matters(void **state)
{
	struct user u = add_user(*state, "alice"), found;
	cleanup_free char *key = xasprintf("%s/token.key", dir);
	struct token t;
	char secret[48];

	OK(store_token_add(*state, u.id, "", secret, &t, &err));
	token_release(&t);
	user_release(&u);
	store_close(*state);
	*state = NULL;

	/* Another key: the database alone gives nothing away. */
	cleanup_free char *aside = xasprintf("%s.aside", key);
	assert_int_equal(rename(key, aside), 0);
	err = ERR_INIT;
	assert_null(store_open(db, &err));
	assert_non_null(strstr(err.msg, "token.key"));
	assert_int_equal(io_write_file(AT_FDCWD, key, "0123456789abcdef0123456789abcdef", 32, 0600), 0);
	*state = store_open(db, &err);
	assert_non_null(*state);
	FAILS(ENOENT, store_token_check(*state, secret, &found, &err));
	store_close(*state);
	*state = NULL;

	/* Readable by others, or cut short: said, not used. */
	assert_int_equal(chmod(key, 0644), 0);
	assert_null(store_open(db, &err));
	assert_non_null(strstr(err.msg, "chmod 600"));
	assert_int_equal(io_write_file(AT_FDCWD, key, "short", 5, 0600), 0);
	assert_null(store_open(db, &err));
	assert_non_null(strstr(err.msg, "damaged"));

	assert_int_equal(rename(aside, key), 0);
	*state = store_open(db, &err);
	assert_non_null(*state);
	OK(store_token_check(*state, secret, &found, &err));
	user_release(&found);
}

static void spaces(void **state)
{
	struct store *s = *state;
	struct user a = add_user(s, "a"), ab = add_user(s, "a-b");
	struct space one = add_space(s, &a, "b-c"), two = add_space(s, &ab, "c"), sp;
	uint32_t gen;

	assert_string_equal(one.label, "a-b-c");
	assert_string_not_equal(two.label, one.label);
	assert_int_equal(strncmp(two.label, "a-b-c-", 6), 0);
	assert_int_equal(one.slot, 1);
	assert_int_equal(two.slot, 2);
	assert_int_equal(one.stage, STAGE_NO_APP_FILE);
	assert_string_equal(one.card, "{}");
	FAILS(EEXIST, store_space_add(s, a.id, "B-C", &sp, &err));
	FAILS(ENOENT, store_space_add(s, "000000000000000000000000", "x", &sp, &err));
	FAILS(EBUSY, store_user_remove(s, a.id, &err));

	OK(store_space_set_stage(s, one.id, STAGE_BUILD_ERROR, "pip failed", &err));
	OK(store_space_set_card(s, one.id, "gradio", "{\"title\":\"x\"}", &err));
	OK(store_space_set_visibility(s, one.id, SPACE_PROTECTED, &err));
	OK(store_space_next_generation(s, one.id, &gen, &err));
	assert_int_equal(gen, 1);
	OK(store_space_next_generation(s, one.id, &gen, &err));
	assert_int_equal(gen, 2);
	*state = s = reopen(s);
	OK(store_space_by_name(s, "A", "B-c", &sp, &err));
	assert_string_equal(sp.id, one.id);
	assert_string_equal(sp.owner, "a");
	assert_string_equal(sp.name, "b-c");
	assert_int_equal(sp.stage, STAGE_BUILD_ERROR);
	assert_string_equal(sp.stage_message, "pip failed");
	assert_string_equal(sp.sdk, "gradio");
	assert_int_equal(sp.visibility, SPACE_PROTECTED);
	assert_int_equal(sp.generation, 2);
	assert_string_equal(sp.release_id, "");
	space_release(&sp);

	/* The lowest free slot is used again, and the label too. */
	OK(store_space_remove(s, one.id, &err));
	FAILS(ENOENT, store_space_by_id(s, one.id, &sp, &err));
	FAILS(ENOENT, store_space_set_stage(s, one.id, STAGE_RUNNING, "", &err));
	FAILS(ENOENT, store_space_next_generation(s, one.id, &gen, &err));
	space_release(&one);
	one = add_space(s, &a, "b-c");
	assert_int_equal(one.slot, 1);
	assert_string_equal(one.label, "a-b-c");
	space_release(&one);
	space_release(&two);
	user_release(&a);
	user_release(&ab);
}

/* Somebody who sits on the salted label too only gets the next one random digits. */
static void labels_never_run_out(void **state)
{
	struct store *s = *state;
	struct user u = add_user(s, "alice"), v = add_user(s, "alice-x");
	struct space victim, sitter = add_space(s, &u, "x-y");
	char want[64];

	name_host_label("alice-x", "y", true, want);
	assert_int_equal(strncmp(want, "alice-", 6), 0);
	struct space squat = add_space(s, &u, want + 6);
	assert_string_equal(squat.label, want);
	victim = add_space(s, &v, "y");
	assert_string_not_equal(victim.label, want);
	assert_int_equal(strncmp(victim.label, "alice-x-y-", 10), 0);
	space_release(&victim);
	space_release(&squat);
	space_release(&sitter);
	user_release(&u);
	user_release(&v);
}

static size_t count(struct store *s, const struct space_filter *f, char *last)
{
	struct space *list;
	size_t n;

	OK(store_space_list(s, f, &list, &n, &err));
	if (n && last)
		memcpy(last, list[n - 1].id, STORE_ID);
	for (size_t i = 0; i < n; i++)
		space_release(&list[i]);
	free(list);
	return n;
}

static void lists(void **state)
{
	struct store *s = *state;
	struct user a = add_user(s, "alice"), b = add_user(s, "bob");
	char last[STORE_ID] = "";
	size_t seen = 0, n;

	OK(store_begin(s, &err));
	for (int i = 0; i < 30; i++) {
		char name[32];
		snprintf(name, sizeof(name), "App_%02d", i);
		struct space sp = add_space(s, i % 3 ? &a : &b, name);
		if (i % 2)
			OK(store_space_set_visibility(s, sp.id, SPACE_PRIVATE, &err));
		space_release(&sp);
	}
	OK(store_commit(s, &err));
	assert_int_equal(count(s, &(struct space_filter){0}, NULL), 15);
	assert_int_equal(count(s, &(struct space_filter){.viewer_id = "*"}, NULL), 30);
	assert_int_equal(count(s, &(struct space_filter){.viewer_id = b.id}, NULL), 20);
	assert_int_equal(count(s, &(struct space_filter){.owner_id = b.id}, NULL), 5);
	assert_int_equal(count(s, &(struct space_filter){.owner_id = b.id, .viewer_id = b.id}, NULL), 10);
	assert_int_equal(count(s, &(struct space_filter){.owner_id = b.id, .viewer_id = a.id}, NULL), 5);
	assert_int_equal(count(s, &(struct space_filter){.viewer_id = "*", .search = "BOB/app_0"}, NULL), 4);
	assert_int_equal(count(s, &(struct space_filter){.viewer_id = "*", .search = "%"}, NULL), 0);
	do {
		n = count(s, &(struct space_filter){.viewer_id = "*", .limit = 7, .after_id = seen ? last : NULL},
			  last);
		seen += n;
	} while (n == 7);
	assert_int_equal(seen, 30);
	user_release(&a);
	user_release(&b);
}

static void builds_and_releases(void **state)
{
	static const char commit[] = "0123456789abcdef0123456789abcdef01234567";
	struct store *s = *state;
	struct user u = add_user(s, "alice");
	struct space sp = add_space(s, &u, "x"), again;
	struct build b, b2, *list;
	struct release r, r2, *rels;
	size_t n;

	OK(store_build_add(s, sp.id, commit, "push", &b, &err));
	OK(store_build_add(s, sp.id, commit, "push", &b2, &err));
	FAILS(ENOENT, store_build_add(s, u.id, commit, "push", &b, &err));
	assert_int_equal(b.state, BUILD_QUEUED);
	assert_string_equal(b.phase, "queued");
	OK(store_build_set(s, b.id, BUILD_RUNNING, "source", NULL, &err));
	OK(store_build_unfinished(s, &list, &n, &err));
	assert_int_equal(n, 2);
	assert_string_equal(list[0].id, b.id);
	assert_true(list[0].started > 0 && list[0].finished == 0);
	build_release(&list[0]);
	build_release(&list[1]);
	free(list);
	OK(store_build_set(s, b.id, BUILD_SUCCEEDED, NULL, NULL, &err));
	OK(store_build_set(s, b2.id, BUILD_FAILED, "dependencies", "no such package", &err));
	OK(store_build_unfinished(s, &list, &n, &err));
	assert_int_equal(n, 0);
	free(list);
	OK(store_build_list(s, sp.id, 1, &list, &n, &err));
	assert_int_equal(n, 1);
	assert_string_equal(list[0].id, b2.id);
	assert_string_equal(list[0].error, "no such package");
	assert_true(list[0].finished > 0);
	build_release(&list[0]);
	free(list);

	FAILS(ENOENT, store_release_add(s, sp.id, sp.id, commit, "{}", &r, &err));
	OK(store_release_add(s, sp.id, b.id, commit, "{\"kind\":\"static\"}", &r, &err));
	OK(store_release_add(s, sp.id, b.id, commit, "{}", &r2, &err));
	FAILS(EBUSY, store_space_set_release(s, sp.id, "000000000000000000000000", 1, &err));
	OK(store_space_set_release(s, sp.id, r2.id, 3, &err));
	*state = s = reopen(s);
	OK(store_space_by_id(s, sp.id, &again, &err));
	assert_string_equal(again.release_id, r2.id);
	space_release(&again);
	OK(store_release_list(s, sp.id, &rels, &n, &err));
	assert_int_equal(n, 2);
	assert_string_equal(rels[0].id, r2.id);
	release_release(&rels[0]);
	release_release(&rels[1]);
	free(rels);
	OK(store_release_remove(s, r2.id, &err));
	OK(store_space_by_id(s, sp.id, &again, &err));
	assert_string_equal(again.release_id, "");
	space_release(&again);

	/* With the Space goes everything that is its own. */
	OK(store_space_remove(s, sp.id, &err));
	FAILS(ENOENT, store_build_by_id(s, b.id, &b2, &err));
	FAILS(ENOENT, store_release_by_id(s, r.id, &r2, &err));
	build_release(&b);
	build_release(&b2);
	release_release(&r);
	release_release(&r2);
	space_release(&sp);
	user_release(&u);
}

static void layers(void **state)
{
	struct store *s = *state;
	struct layer l, *list;
	size_t n;

	FAILS(ENOENT, store_layer_get(s, "k", &l, &err));
	OK(store_layer_add(s, "k", "deps-1", &err));
	FAILS(EEXIST, store_layer_add(s, "k", "deps-2", &err));
	FAILS(EEXIST, store_layer_add(s, "k2", "deps-1", &err));
	*state = s = reopen(s);
	OK(store_layer_get(s, "k", &l, &err));
	assert_string_equal(l.volume, "deps-1");
	assert_true(l.used >= l.created);
	layer_release(&l);
	OK(store_layer_list(s, &list, &n, &err));
	assert_int_equal(n, 1);
	layer_release(&list[0]);
	free(list);
	OK(store_layer_remove(s, "k", &err));
	FAILS(ENOENT, store_layer_remove(s, "k", &err));
}

static void events(void **state)
{
	struct store *s = *state;
	struct user u = add_user(s, "alice");
	struct space sp = add_space(s, &u, "x"), other = add_space(s, &u, "y");
	struct event *list;
	struct store_counts counts;
	size_t n;

	OK(store_event_add(s, NULL, NULL, "start", "spaced started", &err));
	OK(store_event_add(s, other.id, u.id, "push", "main", &err));
	OK(store_begin(s, &err));
	for (int i = 0; i < 600; i++)
		OK(store_event_add(s, sp.id, u.id, "stage", "RUNNING", &err));
	OK(store_commit(s, &err));
	OK(store_event_list(s, sp.id, 0, &list, &n, &err));
	assert_int_equal(n, 500);
	for (size_t i = 0; i < n; i++)
		event_release(&list[i]);
	free(list);
	OK(store_event_list(s, other.id, 5, &list, &n, &err));
	assert_int_equal(n, 1);
	assert_string_equal(list[0].actor_id, u.id);
	event_release(&list[0]);
	free(list);
	OK(store_event_list(s, NULL, 0, &list, &n, &err));
	assert_int_equal(n, 502);
	for (size_t i = 0; i < n; i++)
		event_release(&list[i]);
	free(list);
	OK(store_space_set_stage(s, sp.id, STAGE_RUNNING_BUILDING, NULL, &err));
	OK(store_counts(s, &counts, &err));
	assert_int_equal(counts.users, 1);
	assert_int_equal(counts.spaces, 2);
	assert_int_equal(counts.running, 1);
	space_release(&sp);
	space_release(&other);
	user_release(&u);
}

static void rate_of_a_space(void **state)
{
	struct store *s = *state;
	uint64_t stages[SPACE_STAGES], spaces = 0;
	struct user u;
	char **names;
	size_t n;

	OK(store_user_add(s, "a", false, &u, &err));
	struct space z = add_space(s, &u, "z"), x = add_space(s, &u, "x"), now;
	assert_int_equal(x.rate, SPACE_RATE_DEFAULT);
	for (const int64_t *r = (const int64_t[]){0, 7, SPACE_RATE_DEFAULT, 1000000, -2}; *r != -2; r++) {
		OK(store_space_set_rate(s, x.id, *r, &err));
		OK(store_space_by_id(s, x.id, &now, &err));
		assert_int_equal(now.rate, *r);
		space_release(&now);
	}
	/* and what /metrics asks for */
	OK(store_space_names(s, &names, &n, &err));
	assert_int_equal(n, 2);
	assert_string_equal(names[0], "a/x");
	assert_string_equal(names[1], "a/z");
	store_names_free(names, n);
	OK(store_stage_counts(s, stages, &err));
	for (size_t i = 0; i < SPACE_STAGES; i++)
		spaces += stages[i];
	assert_int_equal(spaces, 2);
	assert_int_equal(stages[STAGE_NO_APP_FILE], 2);
	space_release(&x);
	space_release(&z);
	user_release(&u);
}

/* Said twice it counts once; instances long gone are folded, and late words about the newer ones still count. */
static void egress_and_traffic(void **state)
{
	struct store *s = *state;
	uint64_t in, out;
	struct user u;

	OK(store_user_add(s, "a", false, &u, &err));
	struct space sp = add_space(s, &u, "x");
	OK(store_traffic_sum(s, sp.id, &in, &out, &err));
	assert_int_equal(in + out, 0);
	for (uint32_t g = 1; g <= 100; g++) {
		OK(store_traffic_note(s, sp.id, g, 1000, 10, &err));
		OK(store_traffic_note(s, sp.id, g, 500, 5, &err));
	}
	OK(store_traffic_note(s, sp.id, 100, 3000, 10, &err));
	OK(store_traffic_note(s, sp.id, 99, 2000, 10, &err));
	OK(store_traffic_note(s, "000000000000000000000000", 1, 1, 1, &err));
	*state = s = reopen(s);
	OK(store_traffic_sum(s, sp.id, &in, &out, &err));
	assert_int_equal(in, 98 * 1000 + 2000 + 3000);
	assert_int_equal(out, 1000);
	assert_string_equal(sp.egress, "");
	OK(store_space_set_egress(s, sp.id, "list", "a.test\nb.test\n", &err));
	struct space now;
	OK(store_space_by_id(s, sp.id, &now, &err));
	assert_string_equal(now.egress, "list");
	assert_string_equal(now.egress_list, "a.test\nb.test\n");
	space_release(&now);
	OK(store_space_remove(s, sp.id, &err));
	OK(store_traffic_sum(s, sp.id, &in, &out, &err));
	assert_int_equal(in, 0);
	space_release(&sp);
	user_release(&u);
}

static struct space again(struct store *s, const char *id)
{
	struct space sp;

	OK(store_space_by_id(s, id, &sp, &err));
	return sp;
}

/* Each time that it is switched off, the volume that it would have is another one. */
static void storage_and_volume(void **state)
{
	static const struct {
		uint64_t bytes;
		uint32_t volume;
	} steps[] = {{0, 0}, {1 << 26, 0}, {1 << 27, 0}, {0, 1}, {1 << 26, 1}, {0, 2}};
	struct store *s = *state;
	struct user u;

	OK(store_user_add(s, "a", false, &u, &err));
	struct space sp = add_space(s, &u, "x");
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		if (i > 0)
			OK(store_space_set_storage(s, sp.id, steps[i].bytes, &err));
		struct space now = again(s, sp.id);
		assert_int_equal(now.storage, steps[i].bytes);
		assert_int_equal(now.volume, steps[i].volume);
		space_release(&now);
	}
	space_release(&sp);
	user_release(&u);
}

static void replicas_and_domains(void **state)
{
	struct store *s = *state;
	struct user u = add_user(s, "alice");
	struct space a = add_space(s, &u, "a"), b = add_space(s, &u, "b"), now = {0};
	struct domain *list;
	uint32_t generations[2];
	size_t n;

	assert_int_equal(a.replicas, 1);
	assert_string_equal(a.sticky, "");
	OK(store_space_set_replicas(s, a.id, 3, &err));
	OK(store_space_set_sticky(s, a.id, "key", &err));
	OK(store_space_by_id(s, a.id, &now, &err));
	assert_int_equal(now.replicas, 3);
	assert_string_equal(now.sticky, "key");
	space_release(&now);

	OK(store_replica_add(s, a.id, 7, &err));
	OK(store_replica_add(s, a.id, 7, &err));
	OK(store_replica_add(s, a.id, 5, &err));
	OK(store_replica_add(s, b.id, 9, &err));
	OK(store_replica_list(s, a.id, generations, 2, &n, &err));
	assert_int_equal(n, 2);
	assert_int_equal(generations[0], 5);
	OK(store_replica_remove(s, a.id, 5, &err));
	OK(store_replica_remove(s, a.id, 5, &err));
	OK(store_replica_list(s, a.id, generations, 2, &n, &err));
	assert_int_equal(n, 1);
	assert_int_equal(generations[0], 7);

	OK(store_domain_add(s, a.id, "x.example.org", &err));
	OK(store_domain_add(s, b.id, "*.example.net", &err));
	assert_int_equal(store_domain_add(s, b.id, "x.example.org", &err), -1);
	assert_int_equal(err.code, EEXIST);
	assert_int_equal(store_domain_remove(s, b.id, "x.example.org", &err), -1);
	assert_int_equal(err.code, ENOENT);
	OK(store_domain_list(s, NULL, &list, &n, &err));
	assert_int_equal(n, 2);
	store_domains_free(list, n);
	OK(store_domain_list(s, b.id, &list, &n, &err));
	assert_int_equal(n, 1);
	assert_string_equal(list[0].host, "*.example.net");
	assert_string_equal(list[0].space, "alice/b");
	store_domains_free(list, n);

	/* All goes with its Space. */
	OK(store_space_remove(s, a.id, &err));
	OK(store_domain_list(s, NULL, &list, &n, &err));
	assert_int_equal(n, 1);
	store_domains_free(list, n);
	OK(store_replica_list(s, a.id, generations, 2, &n, &err));
	assert_int_equal(n, 0);
	space_release(&a);
	space_release(&b);
	user_release(&u);
}

static void transactions(void **state)
{
	struct store *s = *state;
	struct user u;

	OK(store_begin(s, &err));
	FAILS(EDEADLK, store_begin(s, &err));
	OK(store_user_add(s, "alice", false, &u, &err));
	user_release(&u);
	store_rollback(s);
	FAILS(ENOENT, store_user_by_name(s, "alice", &u, &err));
	OK(store_begin(s, &err));
	OK(store_user_add(s, "alice", false, &u, &err));
	user_release(&u);
	OK(store_commit(s, &err));
	OK(store_user_by_name(s, "alice", &u, &err));
	user_release(&u);
	/* Without a commit nothing stays. */
	OK(store_begin(s, &err));
	OK(store_user_add(s, "bob", false, &u, &err));
	user_release(&u);
	*state = s = reopen(s);
	FAILS(ENOENT, store_user_by_name(s, "bob", &u, &err));
}

static void a_thousand_spaces(void **state)
{
	struct store *s = *state;
	struct user u = add_user(s, "alice");

	OK(store_begin(s, &err));
	for (int i = 0; i < 1000; i++) {
		char name[32];
		snprintf(name, sizeof(name), "app%d", i);
		struct space sp = add_space(s, &u, name);
		assert_int_equal(sp.slot, i + 1);
		space_release(&sp);
	}
	OK(store_commit(s, &err));
	assert_int_equal(count(s, &(struct space_filter){0}, NULL), 1000);
	user_release(&u);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    T(files_are_private),
	    T(users),
	    T(tokens),
	    T(token_key_matters),
	    T(spaces),
	    T(labels_never_run_out),
	    T(lists),
	    T(builds_and_releases),
	    T(layers),
	    T(events),
	    T(egress_and_traffic),
	    T(rate_of_a_space),
	    T(storage_and_volume),
	    T(replicas_and_domains),
	    T(transactions),
	    T(a_thousand_spaces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
