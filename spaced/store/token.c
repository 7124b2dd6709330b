/* Tokens: made, checked and kept as keyed BLAKE2b hashes. The key lies beside the database (token.key, 0600), so a copy
 * of the database alone neither gives tokens away nor lets anyone try guesses against it. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/io.h"
#include "spaced/store/store_int.h"

#define TOKEN_PREFIX "hf_" /* clients of the Hub refuse any other */
#define TOKEN_LETTERS 34
#define TOKEN_HASH 32
#define KEY_FILE "token.key"

static int make_key(struct store *s, int dir, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(s, err, "SELECT count(*) FROM tokens", "");
	int rc;

	if (!st || store_step(s, st, err) < 0)
		return -1;
	if (store_u64(st, 0) > 0)
		return err_text(
		    err, EINVAL,
		    "the key file %s beside it is gone, but there are tokens made with it: restore the file, or delete"
		    " all rows of the table `tokens` and make new ones",
		    KEY_FILE);
	randombytes_buf(s->key, sizeof(s->key));
	rc = io_write_file(dir, KEY_FILE, s->key, sizeof(s->key), 0600);
	return rc < 0 ? err_set(err, -rc, "write %s", KEY_FILE) : 0;
}

int store_load_key(struct store *s, const char *dir, struct err *err)
{
	cleanup_close int dfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_close int fd = -1;
	struct stat st;
	int rc;

	if (dfd < 0)
		return err_set(err, errno, "open `%s`", dir);
	fd = openat(dfd, KEY_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT)
		return make_key(s, dfd, err);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, errno, "open %s", KEY_FILE);
	if (!S_ISREG(st.st_mode) || st.st_size != STORE_KEY)
		return err_text(err, EINVAL, "%s is damaged: it must be a file of %d bytes", KEY_FILE, STORE_KEY);
	if (st.st_mode & 077)
		return err_text(err, EPERM,
				"%s can be read by others: make it private (chmod 600) and replace the tokens",
				KEY_FILE);
	rc = io_read_full(fd, s->key, sizeof(s->key));
	return rc < 0 ? err_set(err, -rc, "read %s", KEY_FILE) : 0;
}

static void token_hash(const struct store *s, const char *secret, unsigned char out[TOKEN_HASH])
{
	crypto_generichash(out, TOKEN_HASH, (const unsigned char *)secret, strlen(secret), s->key, sizeof(s->key));
}

static void token_make(char secret[48])
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	size_t n = strlen(TOKEN_PREFIX);

	memcpy(secret, TOKEN_PREFIX, n);
	for (size_t i = 0; i < TOKEN_LETTERS; i++)
		secret[n++] = letters[randombytes_uniform(sizeof(letters) - 1)];
	secret[n] = '\0';
}

static bool token_form(const char *secret)
{
	size_t n = strlen(TOKEN_PREFIX);

	if (strlen(secret) != n + TOKEN_LETTERS || memcmp(secret, TOKEN_PREFIX, n) != 0)
		return false;
	for (const char *p = secret + n; *p; p++)
		if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')))
			return false;
	return true;
}

void token_release(struct token *t)
{
	free(t->label);
	*t = (struct token){0};
}

int store_token_add(struct store *s, const char *user_id, const char *label, char secret[48], struct token *out,
		    struct err *err)
{
	unsigned char hash[TOKEN_HASH];
	struct token t = {0};

	io_random_hex(t.id, 12);
	token_make(secret);
	token_hash(s, secret, hash);
	snprintf(t.prefix, sizeof(t.prefix), "%.7s", secret);
	snprintf(t.user_id, sizeof(t.user_id), "%s", user_id);
	t.created = io_wall_ms();
	if (store_exec(s, err, NULL,
		       "INSERT INTO tokens (id, user_id, label, prefix, hash, created) VALUES (?, ?, ?, ?, ?, ?)",
		       "ssssbi", t.id, user_id, label ? label : "", t.prefix, hash, sizeof(hash),
		       (int64_t)t.created) < 0) {
		sodium_memzero(secret, 48);
		if (err->code == EBUSY)
			err_text(err, ENOENT, "no such user");
		return -1;
	}
	t.label = xstrdup(label ? label : "");
	*out = t;
	return 0;
}

int store_token_check(struct store *s, const char *secret, struct user *out, struct err *err)
{
	unsigned char hash[TOKEN_HASH];
	char id[STORE_ID];
	uint64_t used, now = io_wall_ms();

	if (!token_form(secret))
		return err_text(err, ENOENT, "no such token");
	/* The index is searched by a keyed hash, which an outsider cannot steer: the time of the look-up says nothing
	 * about the token. The comparison that decides is constant-time all the same. */
	token_hash(s, secret, hash);
	{
		cleanup_stmt sqlite3_stmt *st =
		    store_query(s, err,
				"SELECT t.id, t.last_used, t.hash, u.id, u.name, u.admin, u.created FROM tokens t"
				" JOIN users u ON u.id = t.user_id WHERE t.hash = ?",
				"b", hash, sizeof(hash));
		int rc = st ? store_step(s, st, err) : -1;

		if (rc < 0)
			return -1;
		if (rc == 0 || sqlite3_column_bytes(st, 2) != TOKEN_HASH ||
		    sodium_memcmp(sqlite3_column_blob(st, 2), hash, TOKEN_HASH) != 0)
			return err_text(err, ENOENT, "no such token");
		store_copy(st, 0, id, sizeof(id));
		used = store_u64(st, 1);
		store_copy(st, 3, out->id, sizeof(out->id));
		out->name = store_text(st, 4);
		out->admin = store_u64(st, 5) != 0;
		out->created = store_u64(st, 6);
	}
	/* Coarse, so that reading costs no write; a failure here (disk full) must not lock people out. */
	if (now > used + 60000) {
		struct err ignored = ERR_INIT;
		store_exec(s, &ignored, NULL, "UPDATE tokens SET last_used = ? WHERE id = ?", "is", (int64_t)now, id);
	}
	return 0;
}

int store_token_id(struct store *s, const char *secret, char id[STORE_ID], struct err *err)
{
	unsigned char hash[TOKEN_HASH];

	token_hash(s, secret, hash);
	cleanup_stmt sqlite3_stmt *st =
	    store_query(s, err, "SELECT id FROM tokens WHERE hash = ?", "b", hash, sizeof(hash));
	int rc = st ? store_step(s, st, err) : -1;
	if (rc == 0)
		return err_text(err, ENOENT, "no such token");
	if (rc > 0)
		store_copy(st, 0, id, STORE_ID);
	return rc < 0 ? -1 : 0;
}

int store_token_user(struct store *s, const char *token_id, struct user *out, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(s, err,
						    "SELECT u.id, u.name, u.admin, u.created FROM tokens t"
						    " JOIN users u ON u.id = t.user_id WHERE t.id = ?",
						    "s", token_id);
	int rc = st ? store_step(s, st, err) : -1;

	if (rc == 0)
		return err_text(err, ENOENT, "no such token");
	if (rc < 0)
		return -1;
	store_copy(st, 0, out->id, sizeof(out->id));
	out->name = store_text(st, 1);
	out->admin = store_u64(st, 2) != 0;
	out->created = store_u64(st, 3);
	return 0;
}

int store_token_list(struct store *s, const char *user_id, struct token **out, size_t *n, struct err *err)
{
	cleanup_stmt sqlite3_stmt *st = store_query(
	    s, err,
	    "SELECT id, user_id, label, prefix, created, last_used FROM tokens WHERE user_id = ? ORDER BY created, id",
	    "s", user_id);
	struct token *list = NULL;
	int rc = -1;

	*out = NULL;
	*n = 0;
	while (st && (rc = store_step(s, st, err)) > 0) {
		list = xreallocarray(list, *n + 1, sizeof(*list));
		struct token *t = &list[(*n)++];
		*t = (struct token){0};
		store_copy(st, 0, t->id, sizeof(t->id));
		store_copy(st, 1, t->user_id, sizeof(t->user_id));
		t->label = store_text(st, 2);
		store_copy(st, 3, t->prefix, sizeof(t->prefix));
		t->created = store_u64(st, 4);
		t->last_used = store_u64(st, 5);
	}
	*out = list;
	return rc;
}

int store_token_remove(struct store *s, const char *token_id, struct err *err)
{
	return store_exec_one(s, err, "token", "DELETE FROM tokens WHERE id = ?", "s", token_id);
}
