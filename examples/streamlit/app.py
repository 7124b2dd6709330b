"""Two waves and their sum."""
import math

import streamlit as st

st.set_page_config(page_title="Waves", page_icon="🌊")
st.title("Waves")
first = st.slider("First frequency", 1, 20, 3)
second = st.slider("Second frequency", 1, 20, 5)

points = [step / 200 for step in range(201)]
a = [math.sin(2 * math.pi * first * x) for x in points]
b = [math.sin(2 * math.pi * second * x) for x in points]
st.line_chart({"first": a, "second": b, "sum": [x + y for x, y in zip(a, b)]})

st.write(f"The sum repeats every 1/{math.gcd(first, second)} of the width.")
if st.button("Count"):
    st.session_state.count = st.session_state.get("count", 0) + 1
st.write("Counted", st.session_state.get("count", 0), "times in this session.")
