/* What only an admin may do: users, tokens, the state of the whole. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/io.h"
#include "base/log.h"
#include "sandbox/base.h"
#include "spaced/api/api_int.h"
#include "spaced/names.h"

#define LABEL_MAX 100

static void event(struct call *c, const char *kind, const char *text)
{
	struct err err = ERR_INIT;

	store_event_add(c->a->parts.store, NULL, c->me.id, kind, text, &err);
	log_info("%s: %s, by %s", kind, text, c->me.name);
}

void admin_users_get(struct call *c)
{
	struct err err = ERR_INIT;
	struct user *list = NULL;
	size_t n;

	if (store_user_list(c->a->parts.store, &list, &n, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	json_t *out = json_array();
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(out, json_user(&list[i]));
		user_release(&list[i]);
	}
	free(list);
	call_json(c, 200, out);
}

void admin_user_add(struct call *c)
{
	const char *name = json_string_value(json_object_get(c->body, "name"));
	bool admin = json_is_true(json_object_get(c->body, "admin"));
	struct err err = ERR_INIT;
	struct user u;

	if (name_check_user(name ? name : "", &err) < 0 ||
	    store_user_add(c->a->parts.store, name, admin, &u, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	event(c, admin ? "admin added" : "user added", u.name);
	call_json(c, 201, json_user(&u));
	user_release(&u);
}

void admin_user_remove(struct call *c)
{
	struct err err = ERR_INIT;
	struct user u;

	if (store_user_by_name(c->a->parts.store, c->vars[0], &u, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	if (store_user_remove(c->a->parts.store, u.id, &err) < 0) {
		call_fail(c, &err);
	} else {
		event(c, "user removed", u.name);
		api_access_revoke(c->a, u.id);
		call_json(c, 200, json_user(&u));
	}
	user_release(&u);
}

/* ---- tokens ---- */

static int append_tokens(struct call *c, const struct user *u, json_t *out, struct err *err)
{
	struct token *list = NULL;
	size_t n;

	if (store_token_list(c->a->parts.store, u->id, &list, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		json_array_append_new(out, json_token(&list[i], u->name));
		token_release(&list[i]);
	}
	free(list);
	return 0;
}

void admin_tokens_get(struct call *c)
{
	struct err err = ERR_INIT;
	struct user u;
	json_t *out = json_array();

	if (store_user_by_name(c->a->parts.store, c->vars[0], &u, &err) < 0) {
		json_decref(out);
		call_fail(c, &err);
		return;
	}
	if (append_tokens(c, &u, out, &err) < 0) {
		json_decref(out);
		call_fail(c, &err);
	} else {
		call_json(c, 200, out);
	}
	user_release(&u);
}

void admin_tokens_all_get(struct call *c)
{
	struct err err = ERR_INIT;
	struct user *list = NULL;
	json_t *out = json_array();
	size_t n;
	int rc = store_user_list(c->a->parts.store, &list, &n, &err);

	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = append_tokens(c, &list[i], out, &err);
	for (size_t i = 0; list && i < n; i++)
		user_release(&list[i]);
	free(list);
	if (rc == 0) {
		call_json(c, 200, out);
		return;
	}
	json_decref(out);
	call_fail(c, &err);
}

void admin_token_add(struct call *c)
{
	const char *label = json_string_value(json_object_get(c->body, "label"));
	struct err err = ERR_INIT;
	char secret[48];
	struct token t;
	struct user u;

	if (label && strlen(label) > LABEL_MAX) {
		call_error(c, 400, NULL, "a label has at most %d bytes", LABEL_MAX);
		return;
	}
	if (store_user_by_name(c->a->parts.store, c->vars[0], &u, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	if (store_token_add(c->a->parts.store, u.id, label, secret, &t, &err) < 0) {
		call_fail(c, &err);
	} else {
		json_t *j = json_token(&t, u.name);
		json_object_set_new(j, "token", json_string(secret));
		event(c, "token added", u.name);
		token_release(&t);
		call_json(c, 201, j);
	}
	explicit_bzero(secret, sizeof(secret));
	user_release(&u);
}

void admin_token_remove(struct call *c)
{
	struct err err = ERR_INIT;
	struct user u;

	if (store_token_user(c->a->parts.store, c->vars[0], &u, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	if (store_token_remove(c->a->parts.store, c->vars[0], &err) < 0) {
		call_fail(c, &err);
		user_release(&u);
		return;
	}
	event(c, "token removed", c->vars[0]);
	api_access_revoke(c->a, u.id);
	user_release(&u);
	call_json(c, 200, json_pack("{s:s}", "id", c->vars[0]));
}

/* ---- bases ---- */

void admin_base_remove(struct call *c)
{
	const char *name = c->vars[0];
	struct err err = ERR_INIT;

	if (!base_name_ok(name)) {
		call_error(c, 400, NULL, "`%.60s` is no name of a base", name);
		return;
	}
	if (spaces_remove_base(c->a->parts.spaces, name, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	event(c, "base removed", name);
	call_json(c, 200, json_pack("{s:s}", "base", name));
}

/* ---- status ---- */

void admin_status_get(struct call *c)
{
	const struct config *config = c->a->config;
	struct err err = ERR_INIT;
	struct store_counts n;

	if (store_counts(c->a->parts.store, &n, &err) < 0) {
		call_fail(c, &err);
		return;
	}
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:I}", "version", SPACED_VERSION, "url",
			      config->public_url, "domain", config->domain, "state", config->state, "spawner",
			      spawner_connected(c->a->parts.spawner), "startedAt", json_date(c->a->started),
			      "uptimeSeconds", (json_int_t)((io_wall_ms() - c->a->started) / 1000));
	json_object_set_new(j, "users", json_integer((json_int_t)n.users));
	json_object_set_new(j, "spaces", json_integer((json_int_t)n.spaces));
	json_object_set_new(j, "running", json_integer((json_int_t)n.running));
	json_object_set_new(j, "buildsQueued", json_integer((json_int_t)n.builds_queued));
	json_object_set_new(j, "buildsRunning", json_integer((json_int_t)n.builds_running));
	call_json(c, 200, j);
}
