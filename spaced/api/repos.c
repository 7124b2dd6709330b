/* Making and deleting Spaces: the Hub's repos/create and repos/delete, and the creation that a first push asks for. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "spaced/api/api_int.h"
#include "spaced/names.h"

/* ---- creation, also by push ---- */

int api_space_can_create(struct api *a, const struct user *owner, const char *name, struct err *err)
{
	struct space_filter f = {.owner_id = owner->id, .viewer_id = "*", .limit = a->config->spaces_per_user};
	struct space *list;
	size_t n;

	if (name_check_space(name, err) < 0)
		return -1;
	if (!f.limit)
		return 0;
	if (store_space_list(a->parts.store, &f, &list, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		space_release(&list[i]);
	free(list);
	if (n >= f.limit)
		return err_text(err, EDQUOT, "%s has %zu Spaces already; more are not allowed here", owner->name, n);
	return 0;
}

static int add_with_repo(struct api *a, const struct user *owner, const char *name, enum space_visibility visibility,
			 const char *sdk, struct space *out, struct err *err)
{
	cleanup_free char *repo = NULL;

	if (store_space_add(a->parts.store, owner->id, name, out, err) < 0)
		return -1;
	repo = xasprintf("%s.git", out->id);
	if (visibility != SPACE_PUBLIC && store_space_set_visibility(a->parts.store, out->id, visibility, err) < 0)
		goto fail;
	if (*sdk && store_space_set_card(a->parts.store, out->id, sdk, "{}", err) < 0)
		goto fail;
	if (git_repo_create(a->repos, repo, err) < 0)
		goto fail;
	/* The repository is there before the record is: a crash between leaves an empty folder, never a record without. */
	if (store_commit(a->parts.store, err) == 0)
		return 0;
	struct err ignored = ERR_INIT;
	git_repo_remove(a->repos, repo, &ignored);
fail:
	space_release(out);
	return -1;
}

int api_space_create(struct api *a, const struct user *owner, const char *name, enum space_visibility visibility,
		     const char *sdk, struct space *out, struct err *err)
{
	struct err ignored = ERR_INIT;
	char id[STORE_ID];

	if (api_space_can_create(a, owner, name, err) < 0 || store_begin(a->parts.store, err) < 0)
		return -1;
	if (add_with_repo(a, owner, name, visibility, sdk, out, err) < 0) {
		store_rollback(a->parts.store);
		return -1;
	}
	memcpy(id, out->id, sizeof(id));
	spaces_created(a->parts.spaces, id);
	store_event_add(a->parts.store, id, owner->id, "created", space_visibility_name(visibility), &ignored);
	log_info("space %s/%s created", owner->name, name);
	space_release(out);
	return store_space_by_id(a->parts.store, id, out, err);
}

/* ---- the request's body ---- */

static const char *body_text(struct call *c, const char *key)
{
	const char *s = json_string_value(json_object_get(c->body, key));

	return s ? s : "";
}

/* `name` with `organization`, or "owner/name"; the caller's namespace without either. False: answered. */
static bool body_repo(struct call *c, char owner[NAME_USER_MAX + 1], const char **name)
{
	const char *type = body_text(c, "type"), *full = body_text(c, "name"), *slash = strchr(full, '/');
	const char *ns = body_text(c, "organization");
	size_t n = *ns ? strlen(ns) : slash ? (size_t)(slash - full) : strlen(c->me.name);
	struct err err = ERR_INIT;

	if (strcmp(type, "space") != 0) {
		call_error(c, 501, NULL,
			   "this server keeps Spaces only: send \"type\": \"space\" (repo_type=\"space\")");
		return false;
	}
	*name = slash ? slash + 1 : full;
	if (n > NAME_USER_MAX) {
		call_error(c, 400, NULL, "the namespace is longer than %d characters", NAME_USER_MAX);
		return false;
	}
	memcpy(owner, *ns ? ns : slash ? full : c->me.name, n);
	owner[n] = '\0';
	if (name_check_space(*name, &err) < 0) {
		call_error(c, 400, NULL, "%s", err.msg);
		return false;
	}
	return true;
}

/* ---- handlers ---- */

static void answer_exists(struct call *c, const char *owner, const char *name)
{
	cleanup_free char *endpoint = call_endpoint(c);
	cleanup_free char *url = xasprintf("%s/spaces/%s/%s", endpoint, owner, name);

	/* exist_ok reads `url` from the body of the 409 (hub-api §6). */
	http_set_header(c->r, "X-Error-Message", "You already created this space repo");
	call_json(c, 409, json_pack("{s:s, s:s}", "error", "You already created this space repo", "url", url));
}

void repo_create(struct call *c)
{
	char owner[NAME_USER_MAX + 1];
	struct err err = ERR_INIT;
	struct user u = {0};
	struct space sp = {0};
	const char *name;

	if (!body_repo(c, owner, &name))
		return;
	if (!c->me.admin && strcasecmp(owner, c->me.name) != 0) {
		call_error(c, 403, NULL, "You don't have the rights to create a space under the namespace \"%s\"",
			   owner);
		return;
	}
	if (store_user_by_name(c->a->parts.store, owner, &u, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	enum space_visibility visibility =
	    json_is_true(json_object_get(c->body, "private")) ? SPACE_PRIVATE : SPACE_PUBLIC;
	if (*body_text(c, "visibility") && !space_visibility_of(body_text(c, "visibility"), &visibility)) {
		call_error(c, 400, NULL, "\"visibility\" is public, protected or private");
		user_release(&u);
		return;
	}
	if (store_space_by_name(c->a->parts.store, owner, name, &sp, &err) == 0 && sp.stage == STAGE_DELETING) {
		http_set_header(c->r, "Retry-After", "2");
		call_error(c, 503, NULL, "%s/%s is being deleted; try again in a moment", owner, name);
	} else if (sp.name) {
		answer_exists(c, sp.owner, sp.name);
	} else if (api_space_create(c->a, &u, name, visibility, body_text(c, "sdk"), &sp, &err) < 0) {
		call_fail(c, &err);
	} else {
		cleanup_free char *endpoint = call_endpoint(c);
		cleanup_free char *url = xasprintf("%s/spaces/%s/%s", endpoint, sp.owner, sp.name);
		cleanup_free char *full = xasprintf("%s/%s", sp.owner, sp.name);
		call_json(c, 200, json_pack("{s:s, s:s, s:s}", "url", url, "name", full, "id", sp.id));
	}
	space_release(&sp);
	user_release(&u);
}

void repo_delete(struct call *c)
{
	char owner[NAME_USER_MAX + 1];
	struct err err = ERR_INIT;
	const char *name;

	if (!body_repo(c, owner, &name))
		return;
	if (store_space_by_name(c->a->parts.store, owner, name, &c->space, &err) < 0) {
		if (err.code == ENOENT)
			call_no_space(c);
		else
			call_fail(c, &err);
		return;
	}
	if (c->space.stage == STAGE_DELETING || !call_may_read(c, &c->space)) {
		call_no_space(c);
	} else if (!call_may_write(c, &c->space)) {
		call_error(c, 403, NULL, "only the owner of %s/%s may delete it", owner, name);
	} else if (spaces_delete(c->a->parts.spaces, c->space.id, &err) < 0) {
		call_fail(c, &err);
	} else {
		cleanup_free char *text = xasprintf("%s/%s", c->space.owner, c->space.name);
		store_event_add(c->a->parts.store, NULL, c->me.id, "deleted", text, &err);
		log_info("space %s deleted by %s", text, c->me.name);
		call_text(c, 200, "text/plain; charset=utf-8", STR("OK"));
	}
}
