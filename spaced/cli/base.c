/* spacectl base ...: the systems that Spaces stand on. Making, listing and choosing the default work without a daemon, on
 * the state folder (sandbox/base.h); removing asks the daemon, which knows who uses what. */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/base.h"
#include "spaced/cli/base_make.h"
#include "spaced/cli/cli.h"

static const char *const base_columns[] = {"BASE=name",	       "DEFAULT=default",     "SUITE=suite",
					   "VARIANT=variant",  "PYTHON=tools.python", "VERSION=id",
					   "CREATED=createdAt"};
static const char *const base_fields[] = {
    "Base=name",	   "Version=id",	  "Default=default",   "Suite=suite",	  "Variant=variant",
    "Packages=packages",   "Python=tools.python", "uv=tools.uv",       "node=tools.node", "npm=tools.npm",
    "On disk=bytes:bytes", "Made with=madeWith",  "Created=createdAt",
};
#define REMOVE_LOOKS 200
#define REMOVE_LOOK_MS 50
#define N(a) (sizeof(a) / sizeof((a)[0]))

static int fail(const struct err *err)
{
	return complain("%s", err->msg);
}

/* The record, with what only the folder as a whole says. NULL: it has just gone. */
static json_t *load(struct cli *c, const char *id)
{
	cleanup_buf struct buf text = BUF_INIT;
	char name[BASE_NAME_MAX + 1], chosen[BASE_NAME_MAX + 1], date[40];
	struct err err = ERR_INIT;
	struct tm tm;

	if (base_record_read(c->state, id, &text, &err) < 0 || !base_id_split(id, name))
		return NULL;
	json_t *j = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
	if (!json_is_object(j)) {
		json_decref(j);
		return NULL;
	}
	base_default(c->state, chosen);
	time_t created = (time_t)(json_integer_value(json_object_get(j, "created")) / 1000);
	gmtime_r(&created, &tm);
	strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S.000Z", &tm);
	json_object_set_new(j, "createdAt", json_string(date));
	json_object_set_new(j, "default", json_boolean(strcmp(name, chosen) == 0));
	return j;
}

static json_t *newest(struct cli *c, const char *name, int *rc)
{
	char id[BASE_ID];
	json_t *j = base_newest(c->state, name, id) ? load(c, id) : NULL;

	*rc = j ? CLI_OK : complain("there is no base `%.60s`; `spacectl base list` shows them", name);
	return j;
}

/* Newest versions; with --json all of them. */
static int base_list_verb(struct cli *c)
{
	json_t *rows = json_array();
	size_t n;
	cleanup_free void *list = base_list(c->state, &n);
	char(*ids)[BASE_ID] = list;

	for (size_t i = 0; i < n; i++) {
		char name[BASE_NAME_MAX + 1], last[BASE_ID];
		json_t *j;
		if (!base_id_split(ids[i], name) || !base_newest(c->state, name, last))
			continue;
		if ((c->json || strcmp(last, ids[i]) == 0) && (j = load(c, ids[i])) != NULL)
			json_array_append_new(rows, j);
	}
	if (c->json)
		print_json(rows);
	else
		print_table(rows, base_columns, N(base_columns),
			    "no bases: Spaces stand on the host's /usr (make one: spacectl base create NAME)");
	json_decref(rows);
	return CLI_OK;
}

static int show(struct cli *c, json_t *j)
{
	if (c->json)
		print_json(j);
	else
		print_fields(j, base_fields, N(base_fields));
	json_decref(j);
	return CLI_OK;
}

static int base_show(struct cli *c)
{
	int rc;
	json_t *j = newest(c, c->word[0], &rc);

	return j ? show(c, j) : rc;
}

static int base_create(struct cli *c)
{
	const struct base_wish wish = {.state = c->state,
				       .name = c->word[0],
				       .suite = c->suite,
				       .variant = c->variant,
				       .packages = c->packages,
				       .mirror = c->mirror};
	struct err err = ERR_INIT;
	json_t *record = NULL;
	char name[BASE_NAME_MAX + 1];

	if (!base_name_ok(wish.name)) {
		complain("`%.60s` is no name for a base: lower-case letters, digits and `-`, at most %d", wish.name,
			 BASE_NAME_MAX);
		return CLI_USAGE;
	}
	if (base_make(&wish, &record, &err) < 0) {
		json_decref(record);
		return fail(&err);
	}
	cleanup_free char *id = xstrdup(json_string_value(json_object_get(record, "id")));
	json_decref(record);
	base_default(c->state, name);
	if (c->json) {
		int rc;
		json_t *j = newest(c, wish.name, &rc);
		return j ? show(c, j) : rc;
	}
	printf("base %s is ready: %s\n", wish.name, id);
	if (strcmp(name, wish.name) != 0)
		printf("for all Spaces: spacectl base default %s      for one: spacectl space base OWNER/NAME %s\n",
		       wish.name, wish.name);
	else
		printf("It is the default: each Space takes it with its next build; `space restart` builds at once.\n");
	return CLI_OK;
}

static int base_remove_verb(struct cli *c)
{
	cleanup_free char *segment = client_segment(c->word[0]);
	cleanup_free char *path = xasprintf("/api/admin/bases/%s", segment);
	char id[BASE_ID];
	json_t *j;
	int rc = client_call(c, "DELETE", path, NULL, &j);

	if (rc != CLI_OK)
		return rc;
	for (unsigned i = 0; i < REMOVE_LOOKS && base_newest(c->state, c->word[0], id); i++)
		poll(NULL, 0, REMOVE_LOOK_MS);
	if (base_newest(c->state, c->word[0], id)) {
		json_decref(j);
		return complain("%s is still there: something stands on it yet; try again", id);
	}
	if (c->json)
		print_json(j);
	else
		printf("base %s was removed\n", c->word[0]);
	json_decref(j);
	return CLI_OK;
}

static int base_default_verb(struct cli *c)
{
	char name[BASE_NAME_MAX + 1], id[BASE_ID];
	struct err err = ERR_INIT;

	if (c->nwords) {
		if (strcmp(c->word[0], BASE_HOST) != 0 && !base_newest(c->state, c->word[0], id))
			return complain("there is no base `%.60s`; `spacectl base list` shows them", c->word[0]);
		cleanup_close int lock = base_lock(c->state, &err); /* no `base create` or another choice beside us */
		if (lock < 0 || base_default_set(c->state, c->word[0], &err) < 0)
			return fail(&err);
	}
	base_default(c->state, name);
	if (c->json)
		printf("{\"default\": \"%s\"}\n", name);
	else if (c->nwords)
		printf("the default base is %s: each Space that names none takes it with its next build; `space "
		       "restart` builds at once\n",
		       name);
	else
		puts(name);
	return CLI_OK;
}

const struct verb base_verbs[] = {
    {"base", "list", "", 0, 0, NULL, "the base images that Spaces can stand on", base_list_verb},
    {"base", "show", "NAME", 1, 1, NULL, "what is in one", base_show},
    {"base", "create", "NAME", 1, 1, "suite variant packages mirror",
     "install a Debian for Spaces to stand on, apart from the host's /usr\n\n"
     "As root, with mmdebstrap (or debootstrap), from the mirrors, through the proxies and with the certificates of "
     "the\n"
     "host's apt. A base of the same name gets a new version; what runs keeps the old one.",
     base_create},
    {"base", "default", "[NAME|host]", 0, 1, NULL, "what Spaces stand on that name no base; `host`: the host's /usr",
     base_default_verb},
    {"base", "remove", "NAME", 1, 1, NULL, "remove one that no Space uses, with all its versions", base_remove_verb},
    {0},
};
