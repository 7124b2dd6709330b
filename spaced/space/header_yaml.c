/* The YAML block of a header as one JSON object, event by event, within bounds: no aliases, so that a small text cannot become a
 * large tree. See header_impl.h. */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <yaml.h>

#include "spaced/space/header_impl.h"

#define DEPTH_MAX 12
#define NODES_MAX 4096

struct reading {
	yaml_parser_t parser;
	struct card *card;
	unsigned nodes;
	struct err *err;
};

static int bad_at(struct reading *r, const yaml_mark_t *m, const char *what)
{
	/* +2: marks count from 0, and the block begins on the second line */
	return err_set(r->err, 0, "README.md line %zu: %s", m->line + 2, what);
}

static int bad_yaml(struct reading *r)
{
	const yaml_parser_t *p = &r->parser;
	const char *what = p->problem ? p->problem : "not valid YAML";

	if (p->error == YAML_READER_ERROR)
		return err_set(r->err, 0, "README.md line %zu: %s (is the file UTF-8?)", p->mark.line + 2, what);
	if (strstr(what, "mapping values are not allowed"))
		return err_set(r->err, 0, "README.md line %zu: %s: put a text with a colon in quotes",
			       p->problem_mark.line + 2, what);
	return bad_at(r, &p->problem_mark, what);
}

bool header_is_int(const char *s)
{
	size_t i = s[0] == '-' || s[0] == '+';
	size_t digits = 0;

	for (; isdigit((unsigned char)s[i]); i++)
		digits++;
	return digits && digits <= 15 && !s[i];
}

static bool is_real(const char *s)
{
	size_t i = s[0] == '-' || s[0] == '+';
	size_t digits = 0;
	bool dot = false;

	for (; s[i]; i++) {
		if (isdigit((unsigned char)s[i]))
			digits++;
		else if (s[i] == '.' && !dot)
			dot = true;
		else
			return false;
	}
	return dot && digits && digits <= 15;
}

/* A plain scalar by the core schema of YAML 1.2, which is what Hugging Face's parser follows: `yes` is a text. */
static json_t *plain_scalar(const char *s)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
	static const char *const trues[] = {"true", "True", "TRUE"};
	static const char *const falses[] = {"false", "False", "FALSE"};

	for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
		if (strcmp(s, nulls[i]) == 0)
			return json_null();
	for (size_t i = 0; i < 3; i++) {
		if (strcmp(s, trues[i]) == 0)
			return json_true();
		if (strcmp(s, falses[i]) == 0)
			return json_false();
	}
	if (header_is_int(s))
		return json_integer(strtoll(s, NULL, 10));
	if (is_real(s))
		return json_real(strtod(s, NULL));
	return json_string(s);
}

static const char *const text_keys[] = {"python_version",	    "sdk_version", "title",
					"startup_duration_timeout", "license",	   "short_description"};

/* `3.10` in python_version is the text "3.10", not the number 3.1. */
static bool wants_text(const char *key)
{
	for (size_t i = 0; key && i < sizeof text_keys / sizeof *text_keys; i++)
		if (strcmp(key, text_keys[i]) == 0)
			return true;
	return false;
}

static json_t *scalar(const yaml_event_t *e, const char *key)
{
	const char *s = (const char *)e->data.scalar.value;

	if (strlen(s) != e->data.scalar.length)
		return NULL;
	if (e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE || (wants_text(key) && *s && strcmp(s, "null") != 0))
		return json_string(s);
	return plain_scalar(s);
}

static int node(struct reading *r, yaml_event_t *e, unsigned depth, const char *key, json_t **out);

static int next(struct reading *r, yaml_event_t *e)
{
	return yaml_parser_parse(&r->parser, e) ? 0 : bad_yaml(r);
}

static int sequence(struct reading *r, unsigned depth, json_t *list)
{
	for (;;) {
		yaml_event_t e;
		json_t *item = NULL;

		if (next(r, &e) < 0)
			return -1;
		if (e.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&e);
			return 0;
		}
		int rc = node(r, &e, depth + 1, NULL, &item);
		yaml_event_delete(&e);
		if (rc < 0)
			return -1;
		json_array_append_new(list, item);
	}
}

static int map_entry(struct reading *r, const yaml_event_t *k, unsigned depth, json_t *map)
{
	const char *key = (const char *)k->data.scalar.value;
	yaml_event_t e;
	json_t *value = NULL;

	if (k->type != YAML_SCALAR_EVENT)
		return bad_at(r, &k->start_mark, "a key must be a plain text");
	if (strlen(key) != k->data.scalar.length || strlen(key) > 200)
		return bad_at(r, &k->start_mark, "a key is too long or holds a NUL byte");
	if (next(r, &e) < 0)
		return -1;
	int rc = node(r, &e, depth + 1, depth == 0 ? key : NULL, &value);
	yaml_event_delete(&e);
	if (rc < 0)
		return -1;
	if (json_object_get(map, key))
		header_warn(r->card, "README.md line %zu: `%s` is there twice; the last one counts",
			    k->start_mark.line + 2, key);
	if (json_object_set_new(map, key, value) < 0)
		return bad_at(r, &k->start_mark, "not valid UTF-8");
	return 0;
}

static int mapping(struct reading *r, unsigned depth, json_t *map)
{
	for (;;) {
		yaml_event_t k;

		if (next(r, &k) < 0)
			return -1;
		if (k.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&k);
			return 0;
		}
		int rc = map_entry(r, &k, depth, map);
		yaml_event_delete(&k);
		if (rc < 0)
			return -1;
	}
}

/* Owns nothing of `e`; `*out` is the new value (also freed by the caller's parent on failure further down). */
static int node(struct reading *r, yaml_event_t *e, unsigned depth, const char *key, json_t **out)
{
	int rc = 0;

	if (++r->nodes > NODES_MAX)
		return bad_at(r, &e->start_mark, "too many values in the header");
	if (depth > DEPTH_MAX)
		return bad_at(r, &e->start_mark, "nested too deeply");
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		*out = scalar(e, key);
		return *out ? 0 : bad_at(r, &e->start_mark, "a NUL byte or bytes that are no UTF-8");
	case YAML_SEQUENCE_START_EVENT:
		*out = json_array();
		rc = sequence(r, depth, *out);
		break;
	case YAML_MAPPING_START_EVENT:
		*out = json_object();
		rc = mapping(r, depth, *out);
		break;
	case YAML_ALIAS_EVENT:
		return bad_at(r, &e->start_mark, "aliases (*name) are not allowed in the header");
	default:
		return bad_at(r, &e->start_mark, "a value is missing");
	}
	if (rc < 0) {
		json_decref(*out);
		*out = NULL;
	}
	return rc;
}

static int document(struct reading *r, json_t **out)
{
	for (;;) {
		yaml_event_t e;

		if (next(r, &e) < 0)
			return -1;
		yaml_event_type_t type = e.type;
		int rc = 0;
		if (type == YAML_SCALAR_EVENT && e.data.scalar.length == 0)
			*out = json_object(); /* an empty block */
		else if (type == YAML_MAPPING_START_EVENT)
			rc = node(r, &e, 0, NULL, out);
		else if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
			 type != YAML_STREAM_END_EVENT)
			rc = bad_at(r, &e.start_mark, "the header must be a list of `key: value` lines");
		yaml_event_delete(&e);
		if (rc < 0 || *out || type == YAML_STREAM_END_EVENT)
			return rc;
	}
}

int header_yaml(struct str block, struct card *card, json_t **out, struct err *err)
{
	struct reading r = {.card = card, .err = err};

	if (!yaml_parser_initialize(&r.parser))
		return err_set(err, ENOMEM, "YAML parser");
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)block.p, block.n);
	int rc = document(&r, out);
	yaml_parser_delete(&r.parser);
	if (rc == 0 && !*out)
		*out = json_object();
	return rc;
}
