"""The look of a report, and the few lines that sort its tables."""

CSS = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff}
body{margin:0 auto;max-width:1480px;padding:0 24px 80px}
h1{font-size:28px;margin:32px 0 4px} h2{font-size:21px;margin:44px 0 8px;border-top:1px solid #d5d9de;padding-top:20px}
h3{font-size:16px;margin:24px 0 6px} p{max-width:900px} .note{color:#57606a;font-size:13px}
nav a{margin-right:16px} a{color:#0b5cad} .wide{overflow-x:auto} table{border-collapse:collapse;font-size:12.5px}
th,td{padding:4px 7px;text-align:right;border-bottom:1px solid #e3e6ea;white-space:nowrap}
tr:first-child>th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
td:first-child{white-space:normal;min-width:150px} td small{display:block;font-size:10px;color:#57606a}
th{border-bottom:2px solid #8c959f;vertical-align:bottom;white-space:normal;min-width:52px;background:#fff}
th[data-n]{cursor:pointer} th[colspan]{text-align:center;border-bottom:1px solid #c4cad1}
th.t,td.t{text-align:left} td.t{white-space:normal;min-width:80px}
details{margin:8px 0} summary{cursor:pointer;font-weight:600;padding:4px 0}
th[aria-sort=ascending]::after{content:" \\2191"} th[aria-sort=descending]::after{content:" \\2193"}
tbody tr:hover td{background:#f3f6fa} svg{width:100%;max-width:1300px;height:auto}
.row{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));gap:8px;background:#16181b;padding:10px}
figure{margin:0} figcaption{color:#eee;font-size:12px;min-height:64px;line-height:1.3} figcaption b{display:block}
.bar{display:flex;gap:8px;align-items:center;background:#16181b;color:#ccc;font-size:12px;padding:0 10px 10px}
.bar i{width:160px;height:10px}
.im{position:relative;background-size:100% 100%;background-repeat:no-repeat;image-rendering:pixelated;margin-bottom:4px}
.im i{position:absolute;border:1px solid #ffd23f;box-sizing:border-box} figure img{width:100%;image-rendering:pixelated}
pre{background:#f3f4f6;padding:12px;overflow-x:auto;font-size:12px} dt{font-weight:600} dd{margin:0 0 6px 0}
.warn{border-left:4px solid #c4432b;padding-left:28px}
@media print{nav{display:none}}
"""

SCRIPT = """
document.querySelectorAll("table.sortable").forEach(function(t){
 t.querySelectorAll("th[data-n]").forEach(function(h){
  var n=Number(h.dataset.n);
  h.addEventListener("click",function(){
   var up=h.getAttribute("aria-sort")!=="ascending",b=t.tBodies[0];
   t.querySelectorAll("th").forEach(function(o){o.removeAttribute("aria-sort")});
   h.setAttribute("aria-sort",up?"ascending":"descending");
   Array.from(b.rows).sort(function(x,y){
    var a=x.cells[n].dataset.v,c=y.cells[n].dataset.v,p=Number(a),q=Number(c);
    var d=a!==""&&c!==""&&!isNaN(p)&&!isNaN(q)?p-q:a.localeCompare(c);
    if(a==="nan")return 1;if(c==="nan")return -1;return up?d:-d;
   }).forEach(function(r){b.appendChild(r)});
  });
 });
});
"""
