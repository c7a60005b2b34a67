for (const figure of document.querySelectorAll("figure.overlay")) {
  const slider = figure.querySelector(".slider");
  const range = slider.querySelector("input");
  const layer = figure.querySelector(".layer");
  const show = () => {
    layer.style.opacity = range.value / 100;
    slider.querySelector("output").textContent = `${range.value} %`;
  };
  slider.hidden = false;
  range.addEventListener("input", show);
  show();
}
