/* spacectl domain ... */
#include <string.h>

#include "base/cleanup.h"
#include "spaced/cli/cli.h"

static const char *const columns[] = {"DOMAIN=domain", "SPACE=space", "ADDED=addedAt"};

static int domain_add(struct cli *c)
{
	cleanup_free char *path = client_space_path(c->word[0], "/domains");
	json_t *j;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "POST", path, json_pack("{s:s}", "domain", c->word[1]), &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s is served at %s; its DNS record: %s\n", c->word[0],
		       json_string_value(json_object_get(j, "domain")),
		       json_string_value(json_object_get(j, "record")));
	json_decref(j);
	return CLI_OK;
}

static int domain_remove(struct cli *c)
{
	cleanup_free char *segment = client_segment(c->word[1]);
	cleanup_free char *rest = xasprintf("/domains/%s", segment);
	cleanup_free char *path = client_space_path(c->word[0], rest);
	json_t *j;

	if (!path)
		return CLI_USAGE;
	int rc = client_call(c, "DELETE", path, NULL, &j);
	if (rc != CLI_OK)
		return rc;
	if (c->json)
		print_json(j);
	else
		printf("%s is no domain of %s any more\n", json_string_value(json_object_get(j, "removed")),
		       c->word[0]);
	json_decref(j);
	return CLI_OK;
}

static int domain_list(struct cli *c)
{
	cleanup_free char *path = c->nwords ? client_space_path(c->word[0], "/domains") : xstrdup("/api/admin/domains");

	return path ? client_show_list(c, path, columns, 3, "no domains: Spaces are served below the server's own")
		    : CLI_USAGE;
}

const struct verb domain_verbs[] = {
    {"domain", "add", "OWNER/NAME DOMAIN", 2, 2, NULL,
     "serve a Space at a host name of its own as well\n\n"
     "demo.example.org, or *.example.org for all names below. Its DNS record has to lead here.",
     domain_add},
    {"domain", "remove", "OWNER/NAME DOMAIN", 2, 2, NULL, "serve it there no longer", domain_remove},
    {"domain", "list", "[OWNER/NAME]", 0, 1, NULL, "host names of Spaces' own", domain_list},
    {0},
};
