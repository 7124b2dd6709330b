"""A guest book in memory: what is written is gone after a restart."""
from flask import Flask, redirect, render_template, request

app = Flask(__name__)
entries = []


@app.get("/")
def index():
    return render_template("index.html", entries=entries)


@app.post("/sign")
def sign():
    name = request.form.get("name", "").strip()[:60]
    if name:
        entries.append(name)
        del entries[:-100]
    return redirect("/")
