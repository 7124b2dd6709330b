/* spacectl user ..., spacectl token ... */
#include <string.h>

#include "base/cleanup.h"
#include "spaced/cli/cli.h"

static const char *const user_columns[] = {"NAME=name", "ADMIN=admin", "CREATED=createdAt", "ID=id"};
static const char *const token_columns[] = {"ID=id",	   "USER=user",		"TOKEN=prefix",
					    "LABEL=label", "CREATED=createdAt", "LAST USED=lastUsed"};

static int user_add(struct cli *c)
{
	json_t *j;
	int rc = client_call(c, "POST", "/api/admin/users",
			     json_pack("{s:s, s:b}", "name", c->word[0], "admin", c->admin), &j);

	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s %s was added; `spacectl token add %s` makes a token\n", c->admin ? "admin" : "user",
		       c->word[0], c->word[0]);
	json_decref(j);
	return CLI_OK;
}

static int user_list(struct cli *c)
{
	return client_show_list(c, "/api/admin/users", user_columns, 4, "no users yet: `spacectl user add NAME`");
}

static int remove_one(struct cli *c, const char *what, const char *collection)
{
	cleanup_free char *segment = client_segment(c->word[0]);
	cleanup_free char *path = xasprintf("%s/%s", collection, segment);
	json_t *j;
	int rc = client_call(c, "DELETE", path, NULL, &j);

	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s %s was removed\n", what, c->word[0]);
	json_decref(j);
	return CLI_OK;
}

static int user_remove(struct cli *c)
{
	return remove_one(c, "user", "/api/admin/users");
}

static int token_add(struct cli *c)
{
	cleanup_free char *user = client_segment(c->word[0]);
	cleanup_free char *path = xasprintf("/api/admin/users/%s/tokens", user);
	json_t *j;
	int rc = client_call(c, "POST", path, json_pack("{s:s}", "label", c->label ? c->label : ""), &j);

	if (rc != CLI_OK)
		return rc;
	/* The token alone, for TOKEN=$(spacectl token add alice). */
	if (c->json)
		print_json(j);
	else
		puts(json_string_value(json_object_get(j, "token")));
	json_decref(j);
	return CLI_OK;
}

static int token_list(struct cli *c)
{
	cleanup_free char *path = NULL;

	if (c->nwords) {
		cleanup_free char *user = client_segment(c->word[0]);
		path = xasprintf("/api/admin/users/%s/tokens", user);
	}
	return client_show_list(c, path ? path : "/api/admin/tokens", token_columns, 6,
				"no tokens yet: `spacectl token add USER`");
}

static int token_remove(struct cli *c)
{
	return remove_one(c, "token", "/api/admin/tokens");
}

const struct verb user_verbs[] = {
    {"user", "add", "NAME", 1, 1, "admin", "add a user", user_add},
    {"user", "list", "", 0, 0, NULL, "all users", user_list},
    {"user", "remove", "NAME", 1, 1, NULL, "remove a user who owns no Spaces, with all tokens", user_remove},
    {0},
};
const struct verb token_verbs[] = {
    {"token", "add", "USER", 1, 1, "label", "make a token and print it alone; it is shown only this once", token_add},
    {"token", "list", "[USER]", 0, 1, NULL, "tokens, by their first letters", token_list},
    {"token", "remove", "ID", 1, 1, NULL, "make a token worthless", token_remove},
    {0},
};
