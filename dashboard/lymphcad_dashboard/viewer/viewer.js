// Shows the picture that Python drew, and tells Python of clicks, the wheel and keys. Nothing of the study is computed here.
const KEYS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 };
const PATIENCE_MS = 700; // for an answer that changes nothing, such as one more step beyond the last slice

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".viewer");
  const state = (root.state ??= { steps: 0, busy: false, shown: null });
  state.send = setTriggerValue;

  const flush = () => {
    if (!state.busy && state.steps) {
      const steps = Math.trunc(state.steps);
      state.steps = 0;
      state.busy = true;
      state.timer = setTimeout(done, PATIENCE_MS);
      state.send("step", steps);
    }
  };
  const done = () => {
    clearTimeout(state.timer);
    state.busy = false;
    flush();
  };
  const step = (steps) => {
    state.steps += steps;
    flush();
  };

  const shown = data.view + data.picture;
  if (state.shown !== shown) {
    state.shown = shown;
    const next = document.createElement("div");
    next.innerHTML = data.picture;
    // Decoded before it is shown, so that nothing flickers.
    const pictures = [...next.querySelectorAll("image")].map((image) => {
      const decoded = new Image();
      decoded.src = image.getAttribute("href");
      return decoded.decode().catch(() => undefined);
    });
    Promise.all(pictures).then(() => {
      if (state.shown !== shown) return; // a later one is on its way
      root.replaceChildren(next.firstElementChild);
      root.dataset.view = data.view;
      done();
    });
  }

  root.onclick = (event) => {
    const box = root.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    // With what was on the screen, which may be older than what the server has.
    state.send("click", { x, y, view: root.dataset.view });
  };
  root.onwheel = (event) => {
    event.preventDefault();
    step(Math.sign(event.deltaY));
  };
  root.onkeydown = (event) => {
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    step(KEYS[event.key]);
  };
  root.onpointerenter = () => root.focus({ preventScroll: true });
}
