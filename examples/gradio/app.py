"""Says numbers in words: one plain function, one stream, one with files."""
import tempfile
import time
from pathlib import Path

import gradio as gr
from num2words import num2words


def say(number: float, language: str) -> str:
    return num2words(int(number), lang=language)


def count(upto: float, language: str):
    words = []
    for number in range(1, int(upto) + 1):
        words.append(num2words(number, lang=language))
        yield ", ".join(words)
        time.sleep(0.05)


def shout(path: str) -> str:
    out = Path(tempfile.mkdtemp()) / "shout.txt"
    out.write_text(Path(path).read_text(encoding="utf-8").upper(), encoding="utf-8")
    return str(out)


LANGUAGES = ["en", "de", "fr", "es", "it"]

with gr.Blocks(title="Word clock") as demo:
    gr.Markdown("# Word clock\nNumbers in words.")
    with gr.Row():
        number = gr.Number(value=42, precision=0, label="Number")
        language = gr.Dropdown(LANGUAGES, value="en", label="Language")
    words = gr.Textbox(label="In words")
    with gr.Row():
        gr.Button("Say it", variant="primary").click(say, [number, language], words, api_name="say")
        gr.Button("Count to it").click(count, [number, language], words, api_name="count")
    with gr.Row():
        text = gr.File(label="A text file")
        loud = gr.File(label="The same, louder")
    text.upload(shout, text, loud, api_name="shout")

if __name__ == "__main__":
    demo.launch()
